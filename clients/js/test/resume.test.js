// Several nodes on a real Redis behind HAProxy: what happens to a client when a part fails.

import assert from "node:assert/strict";
import { test } from "node:test";
import { client, listening, record, rejection } from "./lib/clients.js";
import { haproxy, node, redis, until } from "./lib/cluster.js";

const cluster = async (number, env) => {
  const broker = await redis();
  const nodes = await Promise.all(Array.from({ length: number }, () => node({ broker: broker.url, env })));
  return { broker, nodes, door: await haproxy(nodes) };
};

test("over killed and stopped nodes nothing is missing, nothing comes twice, and each publish is delivered once", async (t) => {
  const { nodes, door } = await cluster(3);
  const readers = await Promise.all(Array.from({ length: 6 }, () => listening(client(t, door.url), "resume")));
  const writer = client(t, door.url).channel("resume");
  const published = [];
  let number = 0;
  let on = true;
  const writing = (async () => {
    while (on) {
      published.push(writer.publish(number++));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await Promise.all(published);
  })();
  for (const [index, signal] of [[0, "SIGKILL"], [1, "SIGTERM"], [2, "SIGKILL"], [0, "SIGTERM"]]) {
    const before = readers[0].seen.length;
    await nodes[index].kill(signal);
    await until(() => readers.every(({ seen }) => seen.length > before + 200), "all go on");
    await nodes[index].start();
  }
  on = false;
  await writing;
  for (const { seen } of readers) {
    await until(() => seen.length >= number, "all are there");
    assert.ok(!seen.includes("lost"));
    assert.equal(new Set(seen).size, seen.length, "nothing twice");
    assert.deepEqual([...seen].sort((a, b) => a - b), [...Array(number).keys()]);
  }
  assert.deepEqual(readers[1].seen, readers[0].seen, "all have one order");
});

test("a publish whose outcome is unknown is repeated, and delivered once", async (t) => {
  const broker = await redis();
  const { url } = await node({ broker: broker.url, env: { FANFARE__BROKER__PUBLISH_TIMEOUT: "300ms" } });
  const { room, seen } = await listening(client(t, url), "unknown");
  await room.publish("before");
  broker.program.signal("SIGSTOP");
  const published = [room.publish("a"), room.publish("b")];
  const short = await rejection(room.publish("c", { timeout: 1000 }));
  assert.deepEqual([short.code, short.retry, typeof short.key], ["unknown", true, "string"]);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  broker.program.signal("SIGCONT");
  await Promise.all(published);
  // The application may go on with the key.
  await room.publish("c", { key: short.key });
  await room.publish("end");
  await until(() => seen.includes("end"));
  assert.deepEqual([...seen].sort(), ["a", "b", "before", "c", "end"]);
});

test("without a broker the client says so, and publishes what waited when it is back", async (t) => {
  const broker = await redis();
  const { url } = await node({ broker: broker.url, env: { FANFARE__BROKER__PUBLISH_TIMEOUT: "300ms" } });
  const { room } = await listening(client(t, url), "degraded");
  const told = [];
  room.on("degraded", (degraded) => told.push(degraded));
  await broker.program.kill();
  const published = room.publish("waits");
  await until(() => told.includes(true));
  await broker.restart();
  await published;
  await until(() => told.at(-1) === false);
});

test("messages that a broker lost are announced before any later message", async (t) => {
  const broker = await redis();
  const { url } = await node({ broker: broker.url });
  const { room, seen } = await listening(client(t, url), "lost");
  await room.publish(1);
  await until(() => seen.length === 1);
  await broker.restart(); // with an empty log
  await until(async () => {
    await room.publish(2);
    return seen.includes(2);
  });
  assert.deepEqual(seen.slice(0, 3), [1, "lost", 2]);
});

test("a position that proves nothing is a loss, for a loop as for listeners", async (t) => {
  const one = await redis();
  const first = await node({ broker: one.url });
  const writer = client(t, first.url).channel("other-log");
  const { at } = await writer.publish(1);
  const two = await redis();
  const second = await node({ broker: two.url });
  const room = client(t, second.url).channel("other-log", { since: at });
  const seen = record(room);
  const lost = [];
  room.on("lost", (event) => lost.push(event));
  await until(() => lost.length);
  assert.deepEqual(lost[0], { channel: "other-log", after: at, reason: "not_recovered" });
  await room.publish(2);
  await until(() => seen.length === 2);
  assert.deepEqual(seen, ["lost", 2]);
});

test("a node that drains is left when it says so, and nothing is missing", async (t) => {
  const { nodes, door } = await cluster(2, { FANFARE__TIMING__DRAIN: "5s" });
  const readers = await Promise.all(Array.from({ length: 10 }, () => listening(client(t, door.url), "drain")));
  const writer = client(t, nodes[1].url).channel("drain");
  const drained = nodes[0].kill("SIGTERM");
  for (let i = 0; i < 200; i++) await writer.publish(i);
  await drained;
  for (const { seen } of readers) await until(() => seen.length === 200);
  for (const { seen } of readers) assert.deepEqual(seen, [...Array(200).keys()]);
});
