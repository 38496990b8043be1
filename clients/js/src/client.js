// The client: channels, publishes and requests on whatever line there is. It survives any number of connections.

import { Emitter, FanfareError, LONGEST_TIMER, backoff, failure } from "./errors.js";
import { Keep } from "./keep.js";
import { Channel, Room } from "./room.js";

export class Client extends Emitter {
  _channels = new Map();
  _asks = new Map(); // commands of this connection, by id
  _requests = new Map(); // publishes and questions that outlive a connection, by id
  _id = 9; // the line uses lower ones
  _up = false;
  _closed = false;

  /** Without a line yet: `_line` is set before anything else is called. */
  constructor(base, { queue = 1000, timeout = 30e3, keep = false }) {
    super();
    this.state = "connecting";
    this._most = queue;
    this._timeout = timeout;
    if (keep) this._keep = new Keep(base, () => this._channels.values());
  }

  channel(name, { since, last, presence } = {}) {
    if (this._closed) throw new FanfareError("closed");
    let channel = this._channels.get(name);
    if (!channel) {
      channel = new Channel(this, name, this._keep?._take(name) ?? since, last);
      this._channels.set(name, channel);
    }
    return new Room(this, channel, presence);
  }

  close() {
    this._finish();
  }

  _forget(channel) {
    if (this._channels.get(channel.name) === channel) this._channels.delete(channel.name);
  }

  /** Sends a command that is of use on this connection only. */
  _ask(command, reply) {
    const id = ++this._id;
    this._asks.set(id, reply);
    this._line.send({ id, ...command });
    return id;
  }

  /** Sends a command until it is answered, on as many connections as it takes, and for `timeout` at most. */
  async _request(command, timeout = this._timeout) {
    if (this._closed) throw new FanfareError("closed");
    if (this._requests.size >= this._most) throw new FanfareError("queue_full", `${this._most} wait`, true);
    return new Promise((resolve, reject) => {
      const id = ++this._id;
      const { publish } = command;
      let tries = 0;
      let sent, unsure, refused, timer; // on this connection; whether an earlier try may have stored it; the last answer
      const settle = (error, value) => {
        clearTimeout(deadline);
        clearTimeout(timer);
        this._requests.delete(id);
        if (!error) return resolve(value);
        // With the key the application can repeat it later, and it is still delivered once.
        if (publish) error.key = publish.key;
        reject(error);
      };
      const deadline = setTimeout(() => {
        // An answered try is over; another one may have stored the message.
        const unknown = publish && (sent || unsure);
        const silent = { code: unknown ? "unknown" : "timeout", message: "no answer in time", retry: true };
        settle(failure((!unknown && refused) || silent));
      }, Math.min(timeout, LONGEST_TIMER));
      const send = () => {
        clearTimeout(timer);
        sent = true;
        this._line.send({ id, ...command });
      };
      const answer = ({ ok, error }) => {
        if (!error?.retry) return settle(error && failure(error), ok);
        sent = false;
        unsure ||= error.code === "unknown";
        refused = error;
        timer = setTimeout(() => this._up && send(), error.retry_after_ms ?? backoff(tries++));
      };
      this._requests.set(id, { _send: send, _answer: answer, _settle: settle, _cut: () => (unsure ||= sent) });
      if (this._up) send();
      else this._line.wake();
    });
  }

  /** Everything that the line has to say. */
  _receive(frame) {
    if (frame.state) return this._turn(frame.state);
    const { id, ping } = frame;
    if (id) {
      const request = this._requests.get(id);
      const reply = this._asks.get(id);
      this._asks.delete(id);
      if (request) request._answer(frame);
      else reply?.(frame.ok, frame.error);
    } else if (ping) {
      for (const name in ping.at) this._channels.get(name)?._reach(ping.at[name]);
    } else if ("degraded" in frame) {
      this._emit("degraded", frame.degraded);
      for (const channel of this._channels.values()) channel._all("degraded", frame.degraded);
    } else {
      this._channels.get((frame.unsubscribed ?? frame.ok ?? frame).channel)?._receive(frame);
    }
  }

  /** The line is in another state. */
  _turn(state) {
    if (this._closed) return;
    this._up = state.state === "open";
    this._asks.clear();
    for (const request of this._requests.values()) request._cut();
    for (const channel of this._channels.values()) channel._cut();
    if (state.state === "closed") return this._finish(state.error);
    this.state = state.state;
    this._emit("state", state);
    if (this._up) {
      for (const channel of this._channels.values()) {
        channel._refused = false;
        channel._sees = !!channel._list;
        channel._sync();
      }
      for (const request of this._requests.values()) request._send();
    } else if (state.state === "idle" && (this._requests.size || [...this._channels.values()].some(({ _uses }) => _uses))) {
      this._line.wake();
    }
  }

  _finish(error) {
    if (this._closed) return;
    this._keep?._stop();
    this._closed = true;
    this._up = false;
    this._line.close();
    for (const request of [...this._requests.values()]) {
      request._settle(new FanfareError(error?.code ?? "closed", error?.message));
    }
    for (const channel of this._channels.values()) {
      channel._cut();
      for (const room of [...channel._rooms]) room._end(error);
    }
    this.state = "closed";
    this._emit("state", { state: "closed", error });
  }
}
