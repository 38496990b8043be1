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

/** Opens a line. `out` gets each frame and each new state. */
export const openLine = (base, { token: source, fallback = true, WebSocket = globalThis.WebSocket }, out) => {
  const renewable = typeof source === "function";
  const wires = new Set(); // a socket, a stream, or both while neither has opened
  const sizes = new Map(); // of the commands that wait for an answer
  const ended = new AbortController();
  let run = 0; // which connection counts: what others still say is ignored
  let tries = 0;
  let wire, wasOpen, hadSocket; // the wire that is open, whether one was since the last 4401, and whether a socket ever was
  let opened, seen, asked, hint; // when it opened, said something, was asked for a sign of life; how long it said to wait
  let idle, waits; // nothing to do; the time of the next try is ours to change
  let timer, late, fresh;
  let held, asking; // the token, and the request for one

  const stop = () => {
    run++;
    idle = waits = false;
    opened = asked = hint = 0;
    for (const each of [timer, late, fresh]) clearTimeout(each);
    for (const each of wires) each._close();
    wires.clear();
    wire = null;
    sizes.clear();
  };

  const close = () => {
    stop();
    ended.abort();
    clearInterval(watch);
  };

  const tell = (state, rest) => out({ state: { state, ...rest } });

  const fail = (code, text) => {
    close();
    tell("closed", { error: new FanfareError(code, text || code) });
  };

  const connect = async () => {
    stop();
    const mine = run;
    const current = () => mine === run;
    tell("connecting");
    late = setTimeout(() => {
      asking = null; // a token function that never answers must not hold up the next try
      down({ code: 1006, text: "no answer in time" });
    }, OPEN_TIME);
    let token;
    try {
      token = await getToken();
    } catch (error) {
      if (current()) down({ error });
      return;
    }
    if (!current()) return;
    const start = (open, more) => {
      const started = open(base, token, more, {
        _open: () => current() && greet(started, token),
        _frame: (frame) => current() && wire === started && receive(frame),
        _close: (end) => {
          if (!current() || (wire && wire !== started)) return;
          wires.delete(started);
          // A first failure may be a node that is just starting: a stream only if a socket fails again.
          if (stream && tries && !wire) stream();
          else if (!wires.size) down(end);
        },
      });
      wires.add(started);
    };
    // After a first socket, a failed handshake is most likely a node that is gone: a stream only if it goes on.
    let stream = fallback && (!hadSocket || tries > 5) && (() => ((stream = null), clearTimeout(timer), start(openStream, hadSocket)));
    timer = setTimeout(() => stream && stream(), SOCKET_TIME);
    try {
      if (WebSocket) start(openSocket, WebSocket);
      else if (stream) stream();
      else fail("unsupported", "pass a WebSocket");
    } catch (error) {
      down({ error }); // the browser forbids it, such as ws:// from a page with TLS
    }
  };

  /** A wire is open: it says who we are. The first one wins. */
  const greet = (first, token) => {
    clearTimeout(timer);
    wire = first;
    seen = Date.now();
    for (const other of wires) if (other !== wire) wires.delete(other), other._close();
    if (wire._kind === "stream") begun({});
    else wire._send({ id: HELLO, connect: { token } });
  };

  const begun = (hello) => {
    const transport = wire._kind;
    clearTimeout(late);
    opened = Date.now();
    wasOpen = true;
    hadSocket ||= transport === "websocket";
    // A socket may work by now. The resume makes the change harmless.
    if (transport === "stream") timer = setTimeout(connect, (hadSocket ? 20e3 : STREAM_TIME) * (1 + Math.random()));
    lives(hello);
    tell("open", { transport, ...hello });
  };

  const receive = (frame) => {
    seen = Date.now();
    asked = 0;
    const { id, ok, error } = frame;
    if (frame.reconnect) {
      hint = frame.reconnect.after_ms;
    } else if (id === HELLO) {
      if (ok) begun(ok);
      else down({ code: error.code === "unauthorised" ? 4401 : 1013, text: error.message, wait: error.retry_after_ms });
    } else if (id === REFRESH) {
      if (ok) lives(ok);
      else if (error.code === "forbidden") connect(); // another user: the connection cannot change hands
      else renewLater();
    } else {
      sizes.delete(id);
      out(frame);
    }
  };

  /** The token, from the application only if the last one is used up. All who ask share one request. */
  const getToken = () => {
    if (!renewable) return source;
    if (held && Date.now() < held._until) return held._token;
    return (asking ??= (async () => {
      try {
        const token = await Promise.resolve().then(source);
        // Until a node says how long it lives, it is good for some tries: nodes that are down must not cost a token each time.
        held = { _token: token, _until: Date.now() + TOKEN_REUSE };
        return token;
      } finally {
        asking = null;
      }
    })());
  };

  /** The token lives for so many seconds more: a new one is fetched at a random time between a half and nine tenths of it. */
  const lives = ({ expires_in }) => {
    if (!(expires_in > 0) || !renewable) return;
    const life = expires_in * 1000;
    if (held) held._until = Date.now() + life * 0.9;
    renew(life * (0.5 + 0.4 * Math.random()));
  };

  const renew = (delay) => {
    clearTimeout(fresh);
    fresh = setTimeout(async () => {
      const mine = run;
      if (held) held._until = 0;
      try {
        const token = await getToken();
        if (mine === run) wire?._send({ id: REFRESH, refresh: { token } });
      } catch {
        if (mine === run) renewLater();
      }
    }, Math.min(delay, LONGEST_TIMER));
  };

  /** The old token still counts. If it ends first, the node closes with 4401. */
  const renewLater = () => renew(2e3 + Math.random() * 3e3);

  /** Asks for a sign of life. */
  const probe = () => {
    asked ||= Date.now();
    wire?._send({ ping: {} });
  };

  /** The connection is over, or none could be made: decides whether and when to try again. */
  const down = ({ code, text, wait, error = new FanfareError(`close_${code}`, text || `closed: ${code}`, true) }) => {
    const told = wait ?? (hint || undefined);
    const largest = [...sizes].sort(([, a], [, b]) => b - a)[0];
    if (opened && Date.now() - opened > PROVEN) tries = 0;
    stop();
    if (code === 4401) {
      held = null;
      const again = renewable || (source === undefined && wasOpen);
      wasOpen = false;
      if (!again) return fail("unauthorised", text);
    }
    if (FINAL.includes(code)) return fail(`close_${code}`, text);
    if (code === 1009) {
      // The node does not say which message was too large. With that one it would happen again.
      if (!largest) return fail("too_large", text);
      out({ id: largest[0], error: { code: "too_large", message: text, retry: false } });
    }
    if (code === 1000) {
      idle = true;
      return tell("idle");
    }
    const pause = told ?? Math.max(backoff(tries), code === 4429 ? 5e3 : 0);
    tries++;
    again(pause, told === undefined, error);
  };

  const again = (pause, free, error) => {
    stop();
    waits = free;
    timer = setTimeout(connect, pause);
    tell("waiting", { error, retryIn: pause });
  };

  const watch = setInterval(() => {
    if (!opened) return;
    const now = Date.now();
    // A timer that comes late, after a sleep of the machine or in a hidden tab, has asked late: the answer has its full time.
    if (asked && now - asked > ANSWER_TIME) down({ code: 1006, text: "silent" });
    else if (!asked && now - seen > QUIET) probe();
  }, WATCH);
  /** The network or the user is back: no more waiting, unless the server has set the time. */
  const hurry = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (waits) connect();
    // A stream has no answer to a question: its pings come often enough.
    else if (opened && wire._kind === "websocket") probe();
  };
  const { signal } = ended;
  globalThis.addEventListener?.("online", hurry, { signal });
  globalThis.document?.addEventListener("visibilitychange", hurry, { signal });
  connect();

  return {
    send(frame) {
      const size = wire?._send(frame);
      if (frame.publish && size) sizes.set(frame.id, size);
    },
    /** There is something to do: ends a rest, but not a wait. */
    wake() {
      if (idle) again(backoff(tries++), true);
    },
    close,
  };
};
