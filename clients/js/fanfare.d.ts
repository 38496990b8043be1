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

/** Who is in a channel: a user with all its connections, or a client without a user. */
export interface Member<I = any> {
  readonly user?: string;
  readonly client?: string;
  /** What the user's token says of it. */
  readonly info?: I;
}

/** Who is in a channel, as far as the node knows. */
export interface Presence {
  /** Empty on a channel that tells numbers only, and from 20,000 members on. */
  readonly members: readonly Member[];
  readonly count: number;
  /** Whether members may be missing, or may have left: the list is read again. */
  readonly partial: boolean;
  /** Why there is no list, or none that is sure: `forbidden` if this client may not see it. */
  readonly error?: Error;
}

export interface PresencePage {
  readonly members: Member[];
  readonly count: number;
  /** For the next call, as `after`; missing on the last page. */
  readonly next?: string;
  readonly partial?: boolean;
  /** The names of the nodes whose members may be missing. */
  readonly missing?: string[];
}

export interface PresenceOptions {
  after?: string;
  /** 1 to 1000; the default is 100. */
  limit?: number;
  timeout?: number;
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
  /** Keep a list of who is there. Such a room is subscribed until it is left. */
  presence?: boolean;
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
  /** With `presence`: someone has come or left since the first list. */
  join: Member;
  leave: Member;
  /** With `presence`: the list was read, or has changed. */
  presence: Presence;
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
  /** Who is there now, if a room of this channel has `presence`. */
  readonly members: readonly Member[];
  readonly count: number;
  readonly partial: boolean;
  /** A page of who is there, in the order of names. Needs neither a subscription nor the option. */
  presence(options?: PresenceOptions): Promise<PresencePage>;
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
