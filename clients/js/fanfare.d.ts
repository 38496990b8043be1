/** An opaque text that names a place in a channel. Of two of one channel the greater string is the later one. */
export type Position = string;

export interface Message<T = any> {
  readonly channel: string;
  /** What was published; a `Uint8Array` if it was bytes. */
  readonly data: T;
  readonly at: Position;
  /** Who published it, on a channel whose rule has `tell_publisher`. */
  readonly from?: { readonly user?: string; readonly client: string };
}

export type State = "connecting" | "open" | "waiting" | "idle" | "closed";

export interface StateEvent {
  readonly state: State;
  /** While open: how the messages come. */
  readonly transport?: "websocket" | "stream";
  /** While open: the node's name, this connection's id, and the user of the token. */
  readonly node?: string;
  readonly client?: string;
  readonly user?: string;
  /** While waiting: milliseconds until the next try. */
  readonly retryIn?: number;
  /** Why the client waits, or has given up. */
  readonly error?: Error;
}

export interface Options {
  /** A token, or a function that gets a new one when one is needed. */
  token?: string | (() => string | Promise<string>);
  /** Keep the positions over a reload of the page, in `sessionStorage`. */
  keep?: boolean;
  /** Let all tabs of this origin use one connection; a text makes a group of its own, for example for each user. */
  share?: boolean | string;
  /** Whether to use `/sse` and `POST /publish` where WebSockets are blocked. The default is true. */
  fallback?: boolean;
  /** The most publishes and questions that wait for an answer; the default is 1000. */
  queue?: number;
  /** Milliseconds after which a publish or a question fails; the default is 30000. */
  timeout?: number;
  /** The WebSocket class, where there is no global one. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

export interface ChannelOptions {
  /** This many of the last messages come first. */
  last?: number;
  /** Begin after this position. */
  since?: Position;
}

export interface RoomEvents<T = any> {
  message: Message<T>;
  /** Messages may be missing: reload what you show. Later messages follow. */
  lost: { readonly channel: string; readonly after?: Position; readonly reason: string };
  /** Left out because the client reads slowly and the channel's rule says `slow = "latest"`. */
  skipped: { readonly channel: string; readonly count: number };
  /** No more messages come: `forbidden` or another code. */
  unsubscribed: { readonly channel: string; readonly reason: string };
  subscribed: { readonly channel: string; readonly at: Position; readonly recovered?: boolean };
  /** The node has lost its broker (true), or has it again (false). */
  degraded: boolean;
}

export interface PublishOptions {
  /** Of all publishes on a channel with one key, one is delivered. By default each call has its own. */
  key?: string;
  /** Milliseconds after which it fails. */
  timeout?: number;
}

export interface HistoryOptions {
  before?: Position;
  since?: Position;
  limit?: number;
  timeout?: number;
}

export interface Page<T = any> {
  readonly messages: Message<T>[];
  /** For the next call, as `before` or `since`; missing if there is nothing more to ask for. */
  readonly next?: Position;
  /** Whether it is certain that the channel has no more messages in this direction. */
  readonly complete: boolean;
}

/** A channel, in one place of an application. All rooms of a channel share one subscription. */
export interface Room<T = any> extends AsyncIterable<Message<T>> {
  readonly name: string;
  /** Calls the listener at each event, until the returned function is called. A listener of `message` subscribes. */
  on<E extends keyof RoomEvents>(event: E, listener: (value: RoomEvents<T>[E]) => void): () => void;
  /** Publishes any JSON. Resolves when the broker has stored it. */
  publish(data: T, options?: PublishOptions): Promise<{ readonly at?: Position }>;
  history(options?: HistoryOptions): Promise<Page<T>>;
  /**
   * Loads state that goes with the messages: gives `load` a position, and then the messages after it, once its result is there.
   * If the result has a text `at`, messages up to that position are left out.
   */
  snapshot<S>(load: (position: Position) => S | Promise<S>): Promise<S>;
  /** Ends this room: its loops end and its listeners are removed. */
  leave(): void;
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<T>>;
}

export interface Client {
  readonly state: State;
  channel<T = any>(name: string, options?: ChannelOptions): Room<T>;
  on(event: "state", listener: (state: StateEvent) => void): () => void;
  on(event: "degraded", listener: (degraded: boolean) => void): () => void;
  /** Ends the connection and everything that waits. */
  close(): void;
}

/** A failure, with a code of docs/errors.md, or `timeout`, `queue_full`, `closed`, `busy`, `unsupported`, `close_1008` and the like. */
export class FanfareError extends Error {
  constructor(code: string, message?: string, retry?: boolean);
  readonly code: string;
  /** Whether the same call can succeed later. */
  readonly retry: boolean;
  /** Of a publish: repeated with this key, it is delivered once. */
  readonly key?: string;
}

/** Connects to a gateway and stays connected. `url` is that of the site or of its `/ws`; the default is the page's folder. */
export function connect(url?: string, options?: Options): Client;
