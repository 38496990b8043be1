// Compiled, never run: each use must be right, and each line after `@ts-expect-error` wrong.

import { FanfareError, connect, type Message, type Page } from "@fanfare/client";
import { useChannel, useConnection } from "@fanfare/client/react";

interface Chat {
  text: string;
}

const fan = connect("https://example.com", { token: async () => "token", keep: true, share: "ann", queue: 10, timeout: 5000 });
connect();
connect("/", { token: "fixed", share: true, fallback: false });
// @ts-expect-error: a token is a text
connect("/", { token: 5 });

const room = fan.channel<Chat>("chat:1", { last: 50 });
const off: () => void = room.on("message", ({ data, at, from }) => console.log(data.text, at.length, from?.user));
room.on("lost", ({ reason, after }) => console.log(reason, after?.length));
room.on("skipped", ({ count }) => console.log(count + 1));
room.on("unsubscribed", ({ reason }) => console.log(reason));
room.on("subscribed", ({ at, recovered }) => console.log(at, recovered));
room.on("degraded", (degraded: boolean) => console.log(degraded));
room.on("join", ({ user, client, info }) => console.log(user ?? client, info));
room.on("presence", ({ members, count, partial, error }) => console.log(members[0]?.user, count + 1, partial, error?.message));
fan.channel("chat:1", { presence: true }).members.map(({ user }) => user?.length);
// @ts-expect-error: the list is the client's
room.members.push({ user: "ann" });
// @ts-expect-error: there is no such event
room.on("massage", () => {});
fan.on("state", ({ state, error, retryIn }) => console.log(state === "open", error?.message, retryIn));
// @ts-expect-error: a client has no messages, its rooms have
fan.on("message", () => {});

export const use = async (): Promise<void> => {
  for await (const message of room) {
    const typed: Message<Chat> = message;
    console.log(typed.data.text);
    break;
  }
  const { at } = await room.publish({ text: "hello" }, { key: "once", timeout: 1000 });
  console.log(at?.length);
  // @ts-expect-error: another type of message
  await room.publish({ texts: "hello" });
  const page: Page<Chat> = await room.history({ before: at, limit: 10 });
  console.log(page.messages[0]?.data.text, page.next, page.complete);
  const { members, next, missing } = await room.presence({ after: "user:ann", limit: 10 });
  console.log(members.length, next, missing?.[0], room.count, room.partial);
  const state: { items: number[]; at: string } = await room.snapshot(async (position) => ({ items: [1], at: position }));
  console.log(state.items);
  try {
    await fan.channel("untyped").publish([1, "two", null]);
  } catch (error) {
    if (error instanceof FanfareError) console.log(error.code, error.retry, error.key);
  }
  off();
  room.leave();
  fan.close();
};

export const View = () => {
  const state = useConnection(fan);
  const { messages, lost, publish } = useChannel<Chat>(fan, "chat:1", { last: 10, keep: 50, onLost: ({ reason }) => console.log(reason) });
  return (
    <button onClick={() => publish({ text: "hi" })}>
      {state} {lost} {messages.map(({ data }) => data.text)}
    </button>
  );
};
