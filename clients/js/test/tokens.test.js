// Tokens: refreshed in time, one request for all, and what happens when one is refused.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, listening, opened, rejection } from "./lib/clients.js";
import { WITH_TOKENS, node, tunnel, token, until } from "./lib/cluster.js";

let url, port;
before(async () => ({ url, port } = await node({ env: WITH_TOKENS })));

test("a token is refreshed before it ends, on the same connection", async (t) => {
  let fetched = 0;
  const states = [];
  const fan = client(t, url, { token: async () => (fetched++, token("ann", 4)) });
  fan.on("state", ({ state, user }) => states.push(user ? `${state} ${user}` : state));
  const { room, seen } = await listening(fan, "refresh");
  await until(() => fetched === 4);
  await room.publish("still here");
  await until(() => seen.length === 1);
  assert.deepEqual(states, ["open ann"]);
});

test("all that needs a token at once shares one request, and a cut does not fetch another", async (t) => {
  const wire = await tunnel(port);
  let fetched = 0;
  const fan = client(t, wire.url, { token: async () => (fetched++, token("ann", 600)) });
  const rooms = Array.from({ length: 20 }, (_, i) => fan.channel(`token-${i}`));
  await Promise.all(rooms.map((room) => room.publish(1)));
  for (let i = 0; i < 3; i++) {
    wire.cut();
    await until(() => fan.state !== "open");
    await opened(fan);
  }
  assert.equal(fetched, 1);
});

test("a refused token is replaced by a new one, and the client goes on", async (t) => {
  const tokens = ["not.a.token", token("ann", 600)];
  let fetched = 0;
  const fan = client(t, url, { token: () => tokens[Math.min(fetched++, 1)] });
  const { room, seen } = await listening(fan, "refused");
  await room.publish(1);
  await until(() => seen.length);
  assert.equal(fetched, 2);
});

test("4401 gets a new token, and then everything that was missed", async (t) => {
  const tokens = [token("ann", -27), token("ann", 600)]; // the first is within the leeway of 30 s
  let fetched = 0;
  const states = [];
  const fan = client(t, url, { token: () => tokens[Math.min(fetched++, 1)] });
  fan.on("state", ({ state }) => states.push(state));
  const { seen } = await listening(fan, "expired");
  const writer = client(t, url, { token: token("bob", 600) }).channel("expired");
  let sent = 0;
  await until(async () => {
    await writer.publish(sent++);
    return states.filter((state) => state === "open").length === 2;
  });
  await writer.publish(sent++);
  await until(() => seen.length === sent);
  assert.deepEqual(seen, [...Array(sent).keys()]);
  assert.equal(fetched, 2);
});

test("a fixed token that is refused ends the client with an error, and what waits fails", async (t) => {
  const fan = client(t, url, { token: "not.a.token" });
  const told = new Promise((resolve) => fan.on("state", (event) => event.state === "closed" && resolve(event.error)));
  const waiting = rejection(fan.channel("fixed").publish(1));
  const loop = rejection((async () => {
    for await (const _ of fan.channel("fixed"));
  })());
  assert.equal((await told).code, "unauthorised");
  assert.deepEqual([(await waiting).code, (await loop).code], ["unauthorised", "unauthorised"]);
});

test("a token function that fails is asked again later, and its error is shown", async (t) => {
  let fetched = 0;
  const errors = [];
  const fan = client(t, url, {
    token: () => {
      if (fetched++ < 2) throw new Error("the backend is down");
      return token("ann", 600);
    },
  });
  fan.on("state", ({ error }) => error && errors.push(error.message));
  await opened(fan);
  assert.deepEqual(errors, ["the backend is down", "the backend is down"]);
});

test("a channel that the token does not allow ends its loop, and others go on", async (t) => {
  const rights = { channels: [{ match: "mine", can: ["subscribe", "publish"] }] };
  const restricted = await node({
    env: { ...WITH_TOKENS, FANFARE__CHANNELS: '[{ match = "*", subscribe = "token", publish = "token" }]' },
  });
  const fan = client(t, restricted.url, { token: token("ann", 600, rights) });
  const other = fan.channel("other");
  const reasons = [];
  other.on("unsubscribed", ({ reason }) => reasons.push(reason));
  const error = await rejection((async () => {
    for await (const _ of other);
  })());
  assert.deepEqual([error.code, reasons], ["forbidden", ["forbidden"]]);
  assert.equal((await rejection(other.publish(1))).code, "forbidden");
  const { room, seen } = await listening(fan, "mine");
  await room.publish(1);
  await until(() => seen.length);
});

test("channels that the token subscribes itself resume like others", async (t) => {
  const rights = { subscribe: ["claimed"], channels: [{ match: "*", can: ["subscribe", "publish"] }] };
  const wire = await tunnel(port);
  const fan = client(t, wire.url, { token: token("ann", 600, rights) });
  const { seen } = await listening(fan, "claimed");
  const writer = client(t, url, { token: token("bob", 600) }).channel("claimed");
  let sent = 0;
  for (let i = 0; i < 5; i++) {
    for (let j = 0; j < 20; j++) await writer.publish(sent++);
    const cut = Promise.all(Array.from({ length: 20 }, () => writer.publish(sent++)));
    wire.cut();
    await cut;
    await until(() => fan.state === "open");
  }
  await until(() => seen.length === sent);
  assert.deepEqual(seen, [...Array(sent).keys()]);
});
