#!/usr/bin/env python3
"""Shows that the examples of docs/api.md, "From your language", handle each outcome: a stand-in for the API gives the answers.

Each row of the table is a list of answers to /v1/publish, and the outcome that the program must print.
"""
import http.server
import json
import os
import subprocess
import threading
import time

PROGRAMS = (["bash", "backend/fanfare.sh"], ["node", "backend/fanfare.mjs"], ["python3", "backend/fanfare.py"], ["php", "backend/fanfare.php"])
STORED = (200, {"at": "P"})
UNKNOWN = (504, {"code": "unknown", "detail": "no confirmation", "retry": True})
UNAVAILABLE = (503, {"code": "unavailable", "detail": "no broker", "retry": True})
LIMITED = (429, {"code": "rate_limited", "detail": "too many", "retry": True})
FORBIDDEN = (403, {"code": "forbidden", "detail": "not this channel", "retry": False})
PROXY = (502, None)
CUT = (None, None)
HALF = (200, None)

TABLE = (
    # answers, the outcome that the program prints if it fails
    ([STORED], None),
    ([UNKNOWN, STORED], None),
    ([CUT, STORED], None),
    ([HALF, STORED], None),
    ([PROXY, STORED], None),
    ([UNAVAILABLE, STORED], None),
    ([LIMITED, STORED], None),
    ([FORBIDDEN], "not stored"),
    ([UNAVAILABLE, FORBIDDEN], "not stored"),
    ([UNKNOWN, FORBIDDEN], "unknown"),
    ([CUT, FORBIDDEN], "unknown"),
)


class StandIn(http.server.ThreadingHTTPServer):
    """Answers publishes from a list, and notes each request with its time, key and body."""

    def __init__(self, answers, batches=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.batches, self.requests = list(answers), list(batches), []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.give(200, {"messages": [], "complete": True})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer a.b" and self.headers["Content-Type"] == "application/json"
        self.server.requests.append((self.path, time.monotonic(), self.headers["Idempotency-Key"], body))
        if self.path == "/v1/publish":
            self.give(*(self.server.answers.pop(0) if self.server.answers else FORBIDDEN))
        else:
            asked = self.server.batches.pop(0) if self.server.batches else [{"at": "P"}] * len(body["messages"])
            self.give(200, {"results": asked})

    def give(self, status, answer):
        if status is None:
            self.close_connection = True
            return
        if (status, answer) == HALF:  # ends before the length that it names
            text, length = b'{"at"', 100
        else:
            text = b"<h1>Bad Gateway</h1>" if answer is None else json.dumps(answer, separators=(",", ":")).encode()
            length = len(text)
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status in (429, 503):
            self.send_header("Retry-After", "2")
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = length != len(text)

    def log_message(self, *_):
        pass


def run(program, answers, batches=()):
    server = StandIn(answers, batches)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {**os.environ, "FANFARE_API": f"http://127.0.0.1:{server.server_port}", "FANFARE_KEY": "a.b"}
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=90)
    server.shutdown()
    server.server_close()
    return server, ended


def check(program, answers, failure):
    server, ended = run(program, answers)
    said = ended.stdout + ended.stderr
    assert (ended.returncode == 0) == (failure is None), f"exit {ended.returncode}: {said}"
    # With more than the word, because a trace has lines of the program, too.
    assert failure is None or f"{failure}: not this channel" in said or f"fanfare: {failure}\n" in said, said
    publishes = [request for request in server.requests if request[0] == "/v1/publish"]
    assert len(publishes) == len(answers), f"{len(publishes)} requests instead of {len(answers)}"
    assert {request[2] for request in publishes} == {"order-17-paid"}
    assert all(request[3] == publishes[0][3] == {"channel": "orders:17", "data": {"state": "paid"}} for request in publishes)
    if len(answers) > 1 and answers[0] in (LIMITED, UNAVAILABLE):
        assert publishes[1][1] - publishes[0][1] >= 2, "it did not wait as long as Retry-After says"


def check_batch(program):
    server, ended = run(program, [STORED], [[{"at": "P"}, {"problem": {**UNKNOWN[1], "status": 504}}]])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, second = (request[3]["messages"] for request in server.requests if request[0] == "/v1/batch")
    assert second == (first if program[0] == "bash" else first[1:]) and all("key" in message for message in first)


if __name__ == "__main__":
    for each in PROGRAMS:
        for given, expected in TABLE:
            print(each, given, expected, flush=True)
            check(each, given, expected)
        check_batch(each)
