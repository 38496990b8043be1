// One connection after another to the nodes: tokens, hello, reconnects, and whether it still lives.
//
// Holds no queue: what is sent while there is no connection is gone, and the client sends it again when the state is `open`.

import { FanfareError, LONGEST_TIMER, backoff } from "./errors.js";
import { openSocket } from "./socket.js";
import { openStream } from "./stream.js";

const TOKEN_REUSE = 60e3;
// A node pings about every 25 s. After this silence we ask, and after that time without an answer the connection is dead.
const QUIET = 26e3;
const ANSWER_TIME = 6e3;
const WATCH = 2e3;
// Before a stream is tried beside a socket that does not open; then, how long a stream is used before a socket is tried again.
const SOCKET_TIME = 1500;
const STREAM_TIME = 240e3;
const OPEN_TIME = 15e3;
// A connection that lived so long was a success: the next wait is short again.
const PROVEN = 5e3;

const HELLO = 1;
const REFRESH = 2;

// Close codes after which the same would happen again (docs/errors.md).
const FINAL = [1002, 1003, 1007, 1008, 4403, 4409];

export class Line {
  _run = 0; // which connection counts: what others still say is ignored
  _tries = 0;
  _wires = new Set(); // a socket, a stream, or both while neither has opened
  _sizes = new Map(); // of the commands that wait for an answer

  constructor(base, options, out) {
    this._base = base;
    this._options = options;
    this._out = out;
    this._watch = setInterval(() => this._look(), WATCH);
    this._hurry = () => globalThis.document?.visibilityState !== "hidden" && this._kick();
    globalThis.addEventListener?.("online", this._hurry);
    globalThis.document?.addEventListener("visibilitychange", this._hurry);
    this._connect();
  }

  send(frame) {
    const size = this._wire?._send(frame);
    if (frame.publish && size) this._sizes.set(frame.id, size);
  }

  /** There is something to do: ends a rest, but not a wait. */
  wake() {
    if (this._idle) this._again(backoff(this._tries++));
  }

  /** The network or the user is back: no more waiting, unless the server has set the time. */
  _kick() {
    if (this._waits) this._connect();
    // A stream has no answer to a question: its pings come often enough.
    else if (this._opened && this._wire._kind === "websocket") this._probe();
  }

  close() {
    this._stop();
    this._closed = true;
    clearInterval(this._watch);
    globalThis.removeEventListener?.("online", this._hurry);
    globalThis.document?.removeEventListener("visibilitychange", this._hurry);
  }

  _stop() {
    this._run++;
    this._idle = this._waits = false;
    this._opened = this._asked = this._hint = 0;
    for (const timer of [this._timer, this._late, this._fresh]) clearTimeout(timer);
    for (const wire of this._wires) wire._close();
    this._wires.clear();
    this._wire = null;
    this._sizes.clear();
  }

  _tell(state, rest) {
    this._out({ state: { state, ...rest } });
  }

  async _connect() {
    this._stop();
    const run = this._run;
    const current = () => run === this._run;
    this._tell("connecting");
    this._late = setTimeout(() => {
      this._asking = null; // a token function that never answers must not hold up the next try
      this._down({ code: 1006, text: "no answer in time" });
    }, OPEN_TIME);
    let token;
    try {
      token = await this._token();
    } catch (error) {
      if (current()) this._down({ error });
      return;
    }
    if (!current()) return;
    const { WebSocket = globalThis.WebSocket, fallback = true } = this._options;
    // After a first socket, a failed handshake is most likely a node that is gone: a stream only if it goes on.
    const streams = fallback && (!this._hadSocket || this._tries > 5);
    const start = (open, more) => {
      const wire = open(this._base, token, more, {
        _open: () => current() && this._greet(wire, token),
        _frame: (frame) => current() && this._wire === wire && this._frame(frame),
        _close: (end) => {
          if (!current() || (this._wire && this._wire !== wire)) return;
          this._wires.delete(wire);
          // A first failure may be a node that is just starting: a stream only if a socket fails again.
          if (stream && this._tries && !this._wire) stream();
          else if (!this._wires.size) this._down(end);
        },
      });
      this._wires.add(wire);
    };
    let stream = streams ? () => ((stream = null), clearTimeout(this._timer), start(openStream, this._hadSocket)) : null;
    this._timer = setTimeout(() => stream?.(), SOCKET_TIME);
    try {
      if (WebSocket) start(openSocket, WebSocket);
      else if (stream) stream();
      else this._fail("unsupported", "pass a WebSocket");
    } catch (error) {
      this._down({ error }); // the browser forbids it, such as ws:// from a page with TLS
    }
  }

  /** A wire is open: it says who we are. The first one wins. */
  _greet(wire, token) {
    clearTimeout(this._timer);
    this._wire = wire;
    this._seen = Date.now();
    for (const other of this._wires) if (other !== wire) this._wires.delete(other), other._close();
    if (wire._kind === "stream") this._begun({});
    else wire._send({ id: HELLO, connect: token === undefined ? {} : { token } });
  }

  _begun(hello) {
    const kind = this._wire._kind;
    clearTimeout(this._late);
    this._opened = Date.now();
    this._wasOpen = true;
    this._hadSocket ||= kind === "websocket";
    // A socket may work by now. The resume makes the change harmless.
    const stay = (this._hadSocket ? 20e3 : STREAM_TIME) * (1 + Math.random());
    if (kind === "stream") this._timer = setTimeout(() => this._connect(), stay);
    this._lives(hello.expires_in);
    this._tell("open", { transport: kind, ...hello });
  }

  _frame(frame) {
    this._seen = Date.now();
    this._asked = 0;
    const { id, ok, error } = frame;
    if (frame.reconnect) {
      this._hint = frame.reconnect.after_ms;
    } else if (id === HELLO) {
      if (ok) this._begun(ok);
      else this._down({ code: error.code === "unauthorised" ? 4401 : 1013, text: error.message, wait: error.retry_after_ms });
    } else if (id === REFRESH) {
      if (ok) this._lives(ok.expires_in);
      else if (error.code === "forbidden") this._connect(); // another user: the connection cannot change hands
      else this._renewLater();
    } else {
      this._sizes.delete(id);
      this._out(frame);
    }
  }

  /** The token, from the application only if the last one is used up. All who ask share one request. */
  _token() {
    const { token } = this._options;
    if (typeof token !== "function") return token;
    if (this._held && Date.now() < this._held.until) return this._held.token;
    return (this._asking ??= (async () => {
      try {
        const fresh = await Promise.resolve().then(token);
        // Until a node says how long it lives, it is good for some tries: nodes that are down must not cost a token each time.
        this._held = { token: fresh, until: Date.now() + TOKEN_REUSE };
        return fresh;
      } finally {
        this._asking = null;
      }
    })());
  }

  /** The token lives for so many seconds more: a new one is fetched at a random time between a half and nine tenths of it. */
  _lives(seconds) {
    if (!(seconds > 0) || typeof this._options.token !== "function") return;
    const life = seconds * 1000;
    if (this._held) this._held.until = Date.now() + life * 0.9;
    this._renew(life * (0.5 + 0.4 * Math.random()));
  }

  _renew(delay) {
    clearTimeout(this._fresh);
    this._fresh = setTimeout(async () => {
      const run = this._run;
      if (this._held) this._held.until = 0;
      try {
        const token = await this._token();
        if (run === this._run) this._wire?._send({ id: REFRESH, refresh: { token } });
      } catch {
        if (run === this._run) this._renewLater();
      }
    }, Math.min(delay, LONGEST_TIMER));
  }

  /** The old token still counts. If it ends first, the node closes with 4401. */
  _renewLater() {
    this._renew(2e3 + Math.random() * 3e3);
  }

  /** Asks for a sign of life. */
  _probe() {
    this._asked ||= Date.now();
    this._wire?._send({ ping: {} });
  }

  _look() {
    if (!this._opened) return;
    const now = Date.now();
    // A timer that comes late, after a sleep of the machine or in a hidden tab, has asked late: the answer has its full time.
    if (this._asked && now - this._asked > ANSWER_TIME) this._down({ code: 1006, text: "silent" });
    else if (!this._asked && now - this._seen > QUIET) this._probe();
  }

  /** The connection is over, or none could be made: decides whether and when to try again. */
  _down({ code, text, wait, error = new FanfareError(`close_${code}`, text || `closed: ${code}`, true) }) {
    const hint = wait ?? (this._hint || undefined);
    const opened = this._opened;
    const largest = [...this._sizes].sort(([, a], [, b]) => b - a)[0];
    this._stop();
    if (opened && Date.now() - opened > PROVEN) this._tries = 0;
    if (code === 4401) {
      this._held = null;
      const renewable = typeof this._options.token === "function" || (this._options.token === undefined && this._wasOpen);
      this._wasOpen = false;
      if (!renewable) return this._fail("unauthorised", text);
    }
    if (FINAL.includes(code)) return this._fail(`close_${code}`, text);
    if (code === 1009) {
      // The node does not say which message was too large. With that one it would happen again.
      if (!largest) return this._fail("too_large", text);
      this._out({ id: largest[0], error: { code: "too_large", message: text, retry: false } });
    }
    if (code === 1000) {
      this._idle = true;
      return this._tell("idle");
    }
    const pause = hint ?? Math.max(backoff(this._tries), code === 4429 ? 5e3 : 0);
    this._tries++;
    this._again(pause, hint === undefined, error);
  }

  _again(pause, free = true, error) {
    this._stop();
    this._waits = free;
    this._timer = setTimeout(() => this._connect(), pause);
    this._tell("waiting", { error, retryIn: pause });
  }

  _fail(code, text) {
    this.close();
    this._tell("closed", { error: new FanfareError(code, text || code) });
  }
}
