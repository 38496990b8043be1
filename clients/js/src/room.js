// What an application holds of a channel, and the subscription that all its rooms share.

import { Emitter, FanfareError, backoff, failure, unique } from "./errors.js";

// Messages that may wait in one iterator or snapshot. Above it the channel is unsubscribed, and resumed once they are taken.
const MOST_WAITING = 1024;

const earliest = (positions) => positions.filter(Boolean).sort()[0];
const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));

/** A message as the application gets it: bytes are an Uint8Array. */
export const message = (channel, { base64, ...frame }) => ({
  channel,
  data: base64 == null ? base64 : bytes(base64),
  ...frame,
});

export class Room extends Emitter {
  _iterators = new Set();
  _held = null;
  _left = false;

  /** With `presence` it is subscribed until it is left. */
  constructor(client, channel, presence) {
    super();
    this.name = channel.name;
    this._client = client;
    this._channel = channel;
    this._presence = presence;
    channel._rooms.add(this);
    if (presence) channel._follow();
  }

  get members() {
    return this._channel._shown.members;
  }

  get count() {
    return this._channel._shown.count;
  }

  get partial() {
    return !this._channel._live || this._channel._shown.partial;
  }

  on(event, listener) {
    const off = super.on(event, listener);
    this._wanted();
    return () => {
      off();
      this._channel._sync();
    };
  }

  async publish(data, { key = unique(), timeout } = {}) {
    // A copy, so that a later change of the object changes nothing. What is not JSON throws here.
    const copy = JSON.parse(JSON.stringify(data));
    return this._client._request({ publish: { channel: this.name, data: copy, key } }, timeout);
  }

  async history({ timeout, ...which } = {}) {
    const page = await this._client._request({ history: { channel: this.name, ...which } }, timeout);
    return { ...page, messages: page.messages.map((found) => message(this.name, found)) };
  }

  presence({ timeout, ...which } = {}) {
    return this._channel._page(which, timeout);
  }

  /** Calls `load` with a position, holds later messages back until its result is there, and then gives those after it. */
  async snapshot(load) {
    if (this._held) throw new FanfareError("busy", "a snapshot is being loaded");
    this._held = [];
    let state;
    try {
      const position = await new Promise((resolve, reject) => {
        this._waits = { _resolve: resolve, _reject: reject };
        this._wanted();
        if (this._channel._live) resolve(this._channel._at);
      });
      state = await load(position);
      return state;
    } finally {
      const after = state?.at;
      // Not before the caller has its result: what waits for a promise runs before a timer.
      setTimeout(() => this._release(typeof after === "string" ? after : ""));
    }
  }

  /** Ends this room; the subscription too, if no other room of the channel is in use. */
  leave() {
    if (this._left) return;
    this._end();
    this._listeners = {};
    this._left = true;
    this._channel._drop(this);
  }

  [Symbol.asyncIterator]() {
    const iterator = new Iterator(this);
    this._iterators.add(iterator);
    this._wanted();
    return iterator;
  }

  _wanted() {
    if (this._left || this._client._closed) {
      this._end();
      return;
    }
    this._channel._refused = false;
    this._channel._sync();
  }

  /** Whether this room needs the subscription. */
  get _uses() {
    return !this._left && !!(this._presence || this._listeners.message?.size || this._iterators.size || this._held);
  }

  /** Whether so much waits here that no more should come. */
  get _full() {
    return this._held?.length >= MOST_WAITING || [...this._iterators].some(({ _queue }) => _queue.length >= MOST_WAITING);
  }

  /** The position before the oldest message that the application has not taken. */
  get _oldest() {
    const firsts = [this._held?.find(([, , before]) => before)?.[2]];
    for (const { _queue } of this._iterators) firsts.push(_queue[0]?.[1]);
    return earliest(firsts);
  }

  _give(event, value, before) {
    if (this._held) return void this._held.push([event, value, before]);
    if (event === "message") for (const iterator of this._iterators) iterator._push(value, before);
    this._emit(event, value);
  }

  _release(after) {
    const held = this._held;
    this._held = this._waits = null;
    for (const [event, value, before] of held) {
      if (event !== "message" || value.at > after) this._give(event, value, before);
    }
    this._channel._taken();
  }

  /** Ends what waits: with an error, or without one as at the end of a list. */
  _end(error) {
    this._waits?._reject(error ?? new FanfareError("closed"));
    for (const iterator of [...this._iterators]) iterator._finish(error);
  }
}

/** One `for await` loop. */
class Iterator {
  _queue = [];
  _waiting = [];

  constructor(room) {
    this._room = room;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    const first = this._queue.shift();
    if (first) {
      if (!this._queue.length) this._room._channel._taken();
      return { value: first[0], done: false };
    }
    if (this._ended) {
      const error = this._error;
      this._error = undefined;
      if (error) throw error;
      return { value: undefined, done: true };
    }
    return new Promise((...both) => this._waiting.push(both));
  }

  async return(value) {
    const channel = this._room._channel;
    const before = this._queue[0]?.[1];
    this._finish();
    // Nothing else listens: what was not taken comes again when something listens.
    if (before && !channel._uses) channel._at = channel._floor = before;
    channel._taken();
    return { value, done: true };
  }

  _push(value, before) {
    const waiting = this._waiting.shift();
    if (waiting) waiting[0]({ value, done: false });
    else this._queue.push([value, before]);
  }

  _finish(error) {
    this._ended = true;
    this._error = error;
    if (!error) this._queue = [];
    this._room._iterators.delete(this);
    while (this._waiting.length) this.next().then(...this._waiting.shift());
  }
}

/** The one subscription of all rooms of a channel. */
export class Channel {
  _rooms = new Set();
  _asked = 0; // the id of the subscribe command that counts; 0 is none
  _live = false; // whether that command was answered
  _floor; // messages up to it were given
  _tries = 0;
  _shown = { members: [], count: 0, partial: true };

  constructor(client, name, at, last) {
    this._client = client;
    this.name = name;
    this._at = at;
    this._last = last;
  }

  get _uses() {
    return [...this._rooms].some((room) => room._uses);
  }

  /** The position to keep for a later page. */
  get _kept() {
    return earliest([...this._rooms].map((room) => room._oldest)) ?? this._at;
  }

  /** Subscribes or unsubscribes, as the rooms need it. */
  _sync() {
    const client = this._client;
    const wanted = !this._paused && !this._refused && this._uses;
    if (wanted && !this._asked) {
      if (client._up) this._subscribe();
      else client._line.wake();
    } else if (!wanted && this._asked) {
      this._unsubscribe();
    }
  }

  _subscribe() {
    clearTimeout(this._timer);
    const last = this._seen ? undefined : this._last;
    const presence = this._sees;
    const id = (this._asked = this._client._ask({ subscribe: { channel: this.name, since: this._at, last, presence } }, (ok, error) => {
      if (this._asked !== id) return;
      if (error) this._deny(error);
      else this._begin(ok);
    }));
  }

  /** A room wants to know who is there. */
  _follow() {
    if (!this._list) {
      if (this._asked) this._unsubscribe();
      this._sees = true;
      this._list = import("./fanfare-members.js").then(({ follow }) => follow((which) => this._page(which), (shown, event, value) => {
        this._shown = shown;
        this._all(event, value);
      }, failure));
    }
    this._sync();
  }

  /** A page of who is there. */
  _page(which, timeout) {
    return this._client._request({ presence: { channel: this.name, ...which } }, timeout);
  }

  /** News of who is there, for the part that keeps the list. */
  _take(news) {
    this._list?.then((take) => take(news), (error) => this._all("presence", { ...this._shown, error }));
  }

  _unsubscribe() {
    this._client._line.send({ unsubscribe: { channel: this.name } });
    this._cut();
  }

  /** Forgets the subscription of a connection that is gone. */
  _cut() {
    clearTimeout(this._timer);
    this._asked = 0;
    this._live = false;
    this._take({ over: true });
  }

  _begin({ at, recovered, presence }) {
    this._live = this._seen = true;
    this._tries = 0;
    const after = this._at;
    this._at = this._floor = at;
    if (recovered === false) this._all("lost", { channel: this.name, after, reason: "not_recovered" });
    this._all("subscribed", { channel: this.name, at, recovered });
    for (const room of this._rooms) room._waits?._resolve(at);
    if (this._sees) this._take(presence);
  }

  _deny(error) {
    this._cut();
    if (error.retry) {
      this._timer = setTimeout(() => this._sync(), error.retry_after_ms ?? backoff(this._tries++));
    } else if (this._sees) {
      // The messages may be allowed without the list.
      this._sees = false;
      this._take({ error });
      this._sync();
    } else {
      this._refuse(error.code, error.message);
    }
  }

  _refuse(reason, text) {
    this._cut();
    this._refused = true;
    this._all("unsubscribed", { channel: this.name, reason });
    for (const room of this._rooms) room._end(new FanfareError(reason, text ?? `${this.name}: ${reason}`));
  }

  /** A frame about this channel that is no answer to a command. */
  _receive(frame) {
    if (frame.ok) {
      // The token subscribed us: only our own command says from where.
      if (this._asked) this._unsubscribe();
      this._sync();
    } else if (frame.unsubscribed) {
      this._refuse(frame.unsubscribed.reason);
    } else if (!this._live) {
      // From an earlier subscription: it comes again.
    } else if (frame.lost) {
      this._floor = undefined; // the log may be another one, whose positions do not compare
      this._all("lost", { channel: this.name, ...frame.lost });
      this._take(frame);
    } else if (frame.presence) {
      this._take(frame.presence);
    } else if (frame.skipped) {
      this._all("skipped", { channel: this.name, count: frame.skipped });
    } else if (frame.at && !(frame.at <= this._floor)) {
      const before = this._at;
      this._at = this._floor = frame.at;
      this._all("message", message(this.name, frame), before);
      this._paused = this._full;
      if (this._paused) this._unsubscribe();
    }
  }

  /** The position of a ping: nothing up to it is missing. */
  _reach(at) {
    if (this._live && !(at <= this._floor)) this._at = this._floor = at;
  }

  get _full() {
    return [...this._rooms].some((room) => room._full);
  }

  /** A room has taken what waited, or ended. */
  _taken() {
    this._paused &&= this._full;
    this._sync();
  }

  _all(event, value, before) {
    for (const room of [...this._rooms]) room._give(event, value, before);
  }

  _drop(room) {
    this._rooms.delete(room);
    this._taken();
    if (!this._rooms.size) this._client._forget(this);
  }
}
