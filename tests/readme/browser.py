"""A real Chromium for the scripts in this folder, driven over the W3C WebDriver protocol with Python's standard library.

    with Browser() as browser:
        ann = browser.profile()             # a browser of its own: cookies, storage, windows
        ann.open("http://localhost:8101/")
        ann.until("document.title === 'Chat'")
"""
import base64
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PATIENCE = 90  # seconds: the machine may be busy
SCREENSHOTS = pathlib.Path(os.environ.get("SCREENSHOTS", "tests/output/screenshots"))
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--window-size=1280,800"]


class Browser:
    """One chromedriver and its browsers; all end with the `with` block."""

    def __init__(self):
        # A short path: Chromium makes a Unix socket below it, whose path may have 107 bytes, and ends if that is too long.
        self.folder = tempfile.TemporaryDirectory(dir="/tmp", prefix="ff-", ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True, start_new_session=True,
                                       env={**os.environ, "TMPDIR": self.folder.name})
        self.url = None
        for line in self.driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                self.url = f"http://127.0.0.1:{found[1]}"
                break
        self.sessions = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for session in self.sessions:
            try:
                call("DELETE", session)
            except OSError:
                pass  # it has ended already
        os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        self.driver.stdout.close()
        self.folder.cleanup()

    def profile(self):
        """A new browser, with one window."""
        options = {"args": [*ARGUMENTS, f"--user-data-dir={self.folder.name}/{len(self.sessions)}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = call("POST", f"{self.url}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{self.url}/session/{answer['sessionId']}"
        self.sessions.append(session)
        return Window(session, call("GET", f"{session}/window"))


class Window:
    """One window of a browser."""

    def __init__(self, session, handle):
        self.session, self.handle = session, handle

    def call(self, method, path, body=None):
        call("POST", f"{self.session}/window", {"handle": self.handle})
        return call(method, self.session + path, body)

    def another(self):
        """Another tab of the same browser."""
        return Window(self.session, call("POST", f"{self.session}/window/new", {"type": "window"})["handle"])

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def reload(self):
        self.call("POST", "/refresh", {})

    def value(self, expression):
        return self.call("POST", "/execute/sync", {"script": f"return ({expression}\n)", "args": []})

    def until(self, expression):
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not (seen := self.value(expression)):
            if time.monotonic() > deadline:
                raise AssertionError(f"not true: {expression}\nthe page: {self.value('document.body.innerText')}\n{self.console()}")
            time.sleep(0.05)
        return seen

    def element(self, css):
        found = self.call("POST", "/element", {"using": "css selector", "value": css})
        return f"/element/{next(iter(found.values()))}"

    def click(self, css):
        self.call("POST", f"{self.element(css)}/click", {})

    def type(self, css, text):
        self.call("POST", f"{self.element(css)}/value", {"text": text})

    def console(self):
        """What the console has printed since the last call."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})]

    def until_printed(self, text):
        """Waits until the console has printed this text, and returns all that it has printed."""
        deadline, said = time.monotonic() + PATIENCE, []
        while not any(text in line for line in said):
            if time.monotonic() > deadline:
                raise AssertionError(f"the console has not printed {text}, but {said}")
            time.sleep(0.05)
            said += self.console()
        return said

    def screenshots(self, name):
        """Two pictures, as on a desktop and as on a phone, which must not be wider than its screen."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for width, height in ((1280, 800), (360, 740)):
            screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            self.call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": screen})
            (SCREENSHOTS / f"{name}-{width}.png").write_bytes(base64.b64decode(self.call("GET", "/screenshot")))
            widest = self.value("document.documentElement.scrollWidth")
            assert widest <= width, f"{name} is {widest} pixels wide on a screen of {width}"
        self.call("POST", "/goog/cdp/execute", {"cmd": "Emulation.clearDeviceMetricsOverride", "params": {}})


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()}") from None
