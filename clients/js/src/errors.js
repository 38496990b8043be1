// What the client throws, and how it tells its listeners.

/** A failure. `code` is one of docs/errors.md or of docs/javascript.md; `retry` says whether the same call can succeed later. */
export class FanfareError extends Error {
  constructor(code, message = code, retry = false) {
    super(message);
    this.name = "FanfareError";
    this.code = code;
    this.retry = retry;
  }
}

export const failure = ({ code, message, retry }) => new FanfareError(code, message, retry);

/** Listeners by event. One that throws does not stop the others: its error is reported as uncaught. */
export class Emitter {
  _listeners = {};

  on(event, listener) {
    const entry = { listener };
    const entries = (this._listeners[event] ??= new Set());
    entries.add(entry);
    return () => void entries.delete(entry);
  }

  _emit(event, value) {
    for (const { listener } of [...(this._listeners[event] ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        Promise.reject(error);
      }
    }
  }
}

/** In milliseconds. A longer timer, such as `Infinity`, would fire at once. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** How long to wait before a try, in milliseconds: a random part of a time that doubles from 0.5 s to 30 s. */
export const backoff = (tries) => Math.random() * Math.min(30e3, 500 * 2 ** tries);

/** A text that is made only once, anywhere. Not `crypto.randomUUID`, which exists only on pages with TLS. */
export const unique = () => [1, 2, 3].map(() => Math.random().toString(36).slice(2)).join("");
