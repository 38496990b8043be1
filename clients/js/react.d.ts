import type { Client, Message, PublishOptions, Position, RoomEvents, State } from "./fanfare.js";

/** The last `keep` messages of a channel (100), and how often some were lost. */
export function useChannel<T = any>(
  fan: Client,
  name: string,
  options?: { last?: number; keep?: number; onLost?: (lost: RoomEvents["lost"]) => void },
): {
  readonly messages: readonly Message<T>[];
  readonly lost: number;
  readonly publish: (data: T, options?: PublishOptions) => Promise<{ readonly at?: Position }>;
};

/** The state of the connection. */
export function useConnection(fan: Client): State;
