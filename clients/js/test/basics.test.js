// One node, one client: messages, loops, rooms, bounds and errors.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, listening, opened, read, record, rejection } from "./lib/clients.js";
import { freePort, node, tunnel, until } from "./lib/cluster.js";

let url, port;
before(async () => ({ url, port } = await node()));

test("what is published comes to a loop in order", async (t) => {
  const fan = client(t, url);
  const { room } = await listening(fan, "loop");
  const got = [];
  const ended = (async () => {
    for await (const { data, channel, at } of room) {
      assert.equal(channel, "loop");
      assert.equal(typeof at, "string");
      if (got.push(data) === 100) break;
    }
  })();
  await Promise.all(Array.from({ length: 100 }, (_, i) => room.publish(i)));
  await ended;
  assert.deepEqual(got, [...Array(100).keys()]);
});

test("any form of the URL leads to the same place", async (t) => {
  for (const form of [url, `${url}/`, `${url}/ws`, `${url.replace("http", "ws")}/ws`, `${url}/?a=b#c`]) {
    await opened(client(t, form));
  }
});

test("a room that only publishes does not subscribe", async (t) => {
  const fan = client(t, url);
  const room = fan.channel("quiet");
  room.on("subscribed", () => assert.fail("it subscribed"));
  await room.publish(1);
});

test("two rooms of a channel share one subscription, and leaving one does not end the other", async (t) => {
  const fan = client(t, url);
  const one = await listening(fan, "shared");
  const second = fan.channel("shared");
  let subscribed = 0;
  second.on("subscribed", () => subscribed++);
  const seen = record(second);
  await one.room.publish("a");
  await until(() => one.seen.length === 1 && seen.length === 1);
  one.room.leave();
  await second.publish("b");
  await until(() => seen.length === 2);
  assert.deepEqual([one.seen, seen, subscribed], [["a"], ["a", "b"], 0]);
});

test("a loop that was left by break goes on where it stopped", async (t) => {
  const fan = client(t, url);
  const { room: other } = await listening(fan, "break-writer");
  const room = fan.channel("break");
  const subscribed = new Promise((resolve) => room.on("subscribed", resolve));
  const first = (async () => {
    for await (const { data } of room) return data;
  })();
  await subscribed;
  for (let i = 0; i < 20; i++) await fan.channel("break").publish(i);
  assert.equal(await first, 0);
  await other.publish("meanwhile");
  const rest = [];
  for await (const { data } of room) if (rest.push(data) === 19) break;
  assert.deepEqual(rest, [...Array(19).keys()].map((i) => i + 1));
});

test("a loop that takes nothing stops the channel, and nothing is missing when it goes on", async (t) => {
  const fan = client(t, url);
  const writer = client(t, url).channel("slow");
  const room = fan.channel("slow");
  const subscribed = new Promise((resolve) => room.on("subscribed", resolve));
  const loop = room[Symbol.asyncIterator]();
  await subscribed;
  for (let i = 0; i < 5000; i += 100) {
    await Promise.all(Array.from({ length: 100 }, (_, j) => writer.publish(i + j)));
  }
  for (let i = 0; i < 5000; i++) assert.equal((await loop.next()).value.data, i);
  await loop.return();
});

test("leaving ends the loops of a room", async (t) => {
  const fan = client(t, url);
  const { room } = await listening(fan, "left");
  const loop = (async () => {
    for await (const _ of room);
    return "ended";
  })();
  room.leave();
  assert.equal(await loop, "ended");
  for await (const _ of room) assert.fail("a room that was left gives nothing");
});

test("the last messages come first, and history goes back", async (t) => {
  const fan = client(t, url);
  const writer = fan.channel("history");
  for (let i = 0; i < 10; i++) await writer.publish(i);
  await read(writer, 9);
  const { seen } = await listening(client(t, url), "history", { last: 3 });
  await writer.publish(10);
  await read(writer, 10);
  await until(() => seen.length === 4);
  assert.deepEqual(seen, [7, 8, 9, 10]);
  const newest = await writer.history({ limit: 4 });
  assert.deepEqual(newest.messages.map(({ data }) => data), [7, 8, 9, 10]);
  const older = await writer.history({ limit: 4, before: newest.next });
  assert.deepEqual(older.messages.map(({ data }) => data), [3, 4, 5, 6]);
  const later = client(t, url).channel("history", { since: older.messages[0].at });
  const all = record(later);
  await until(() => all.length === 7);
  assert.deepEqual(all, [4, 5, 6, 7, 8, 9, 10]);
});

test("a change of an object after publish changes nothing, and what is not JSON is refused", async (t) => {
  const fan = client(t, url);
  const { room, seen } = await listening(fan, "copies");
  const data = { a: 1 };
  const published = room.publish(data);
  data.a = 2;
  await published;
  await until(() => seen.length);
  assert.deepEqual(seen[0], { a: 1 });
  const round = {};
  round.self = round;
  for (const wrong of [undefined, round, 1n]) await rejection(room.publish(wrong));
});

// The test runners of Deno and Bun take what is reported as a failure of the test.
const skip = Boolean(globalThis.Deno ?? globalThis.Bun);
test("a listener that throws does not stop the others, and is reported", { skip }, async (t) => {
  const fan = client(t, url);
  const { room, seen } = await listening(fan, "throws");
  let reported;
  const handlers = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  process.once("unhandledRejection", (error) => (reported = error));
  room.on("message", () => {
    throw new Error("of the application");
  });
  const later = record(room);
  await room.publish(1);
  await until(() => seen.length && later.length && reported);
  handlers.forEach((handler) => process.on("unhandledRejection", handler));
  assert.equal(reported.message, "of the application");
});

test("offline, publishes wait up to a number and a time, and each promise settles", async (t) => {
  const fan = client(t, `http://127.0.0.1:${await freePort()}`, { queue: 3, timeout: 300 });
  const room = fan.channel("offline");
  const waiting = [1, 2, 3].map((i) => rejection(room.publish(i, { key: `k${i}` })));
  const full = await rejection(room.publish(4));
  assert.deepEqual([full.code, full.retry], ["queue_full", true]);
  for (const [i, error] of (await Promise.all(waiting)).entries()) {
    assert.deepEqual([error.code, error.retry, error.key], ["timeout", true, `k${i + 1}`]);
  }
  const late = rejection(room.publish(5, { timeout: Infinity }));
  const loop = rejection((async () => room.history())());
  fan.close();
  assert.deepEqual([(await late).code, (await loop).code], ["closed", "closed"]);
  assert.equal((await rejection(room.publish(6))).code, "closed");
  assert.equal(fan.state, "closed");
});

test("what was published while the network was down is delivered once, in order", async (t) => {
  const wire = await tunnel(port);
  const { seen } = await listening(client(t, url), "offline-later");
  const fan = client(t, wire.url);
  await opened(fan);
  const room = fan.channel("offline-later");
  const published = [];
  for (let i = 0; i < 300; i++) {
    published.push(room.publish(i));
    if (i % 50 === 25) {
      wire.cut();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  await Promise.all(published);
  await room.publish("end");
  await until(() => seen.includes("end"));
  assert.deepEqual([...new Set(seen)].length, seen.length, "nothing twice");
  assert.deepEqual(seen, [...Array(300).keys(), "end"]);
});

test("a connection that is open and silent is found and replaced", async (t) => {
  const wire = await tunnel(port);
  const fan = client(t, wire.url);
  const { room, seen } = await listening(fan, "half-open");
  wire.silence();
  const writer = client(t, url).channel("half-open");
  await writer.publish("missed");
  const began = Date.now();
  await until(() => seen.length === 1);
  assert.ok(Date.now() - began < 40e3, `found after ${Date.now() - began} ms`);
  assert.deepEqual(seen, ["missed"]);
  assert.equal(room.name, "half-open");
});

test("a publish that is too large fails alone", async (t) => {
  const fan = client(t, url);
  const { room, seen } = await listening(fan, "large");
  const large = rejection(room.publish("x".repeat(100_000)));
  const small = room.publish("small");
  assert.deepEqual([(await large).code, (await large).retry], ["too_large", false]);
  await small;
  await until(() => seen.length === 1);
  assert.deepEqual(seen, ["small"]);
});

test("an invalid name ends the loops with an error, and the client goes on", async (t) => {
  const fan = client(t, url);
  const error = await rejection((async () => {
    for await (const _ of fan.channel("not valid"));
  })());
  assert.equal(error.code, "bad_channel");
  await fan.channel("valid").publish(1);
});

test("an idle connection that the node ends is opened again when there is something to do", async (t) => {
  const strict = await node({ env: { FANFARE__TIMING__IDLE: "1s" } });
  const fan = client(t, strict.url);
  await until(() => fan.state === "idle");
  await fan.channel("idle").publish(1);
  await until(() => fan.state === "idle");
  const { room, seen } = await listening(fan, "idle");
  await room.publish(2);
  await until(() => seen.length);
});
