// WebSockets blocked by HAProxy: the same events over /sse, and publishes over POST /publish.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, listening, opened, read, record, rejection } from "./lib/clients.js";
import { WITH_TOKENS, haproxy, node, redis, token, tunnel, until } from "./lib/cluster.js";

const BLOCK = ["http-request deny if { req.hdr(upgrade) -i websocket }"];
const HANG = ["timeout tarpit 1h", "http-request tarpit if { req.hdr(upgrade) -i websocket }"];
const WITH_PUBLISH = { FANFARE__HTTP__PUBLISH: "true" };

let broker, nodes, door;
before(async () => {
  broker = await redis();
  nodes = await Promise.all([1, 2].map(() => node({ broker: broker.url, env: WITH_PUBLISH })));
  door = await haproxy(nodes, BLOCK);
});

for (const [how, rules] of [["refused", BLOCK], ["never answered", HANG]]) {
  test(`a handshake that is ${how} becomes a stream within 3 s, with the same events`, async (t) => {
    const blocked = await haproxy(nodes, rules);
    const began = Date.now();
    const fan = client(t, blocked.url);
    let opening;
    fan.on("state", (event) => event.state === "open" && (opening ??= event));
    const { room, seen } = await listening(fan, `stream ${how}`.replaceAll(" ", "-"));
    assert.equal(opening.transport, "stream");
    assert.ok(Date.now() - began < 3000, `${Date.now() - began} ms`);
    for (let i = 0; i < 50; i++) await room.publish({ i });
    await until(() => seen.length === 50);
    assert.deepEqual(seen, Array.from({ length: 50 }, (_, i) => ({ i })));
    assert.equal((await rejection(room.history())).code, "unsupported");
  });
}

test("a stream resumes on another node, keeps its positions when channels come and go, and misses nothing", async (t) => {
  const writers = [1, 2, 3].map((i) => client(t, nodes[1].url).channel(`go-${i}`));
  const fan = client(t, door.url);
  const first = await listening(fan, "go-1");
  const sent = [0, 0, 0];
  let on = true;
  const writing = Promise.all(writers.map(async (writer, i) => {
    while (on) {
      await writer.publish(sent[i]++);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }));
  const rooms = [first];
  for (let i = 2; i <= 3; i++) {
    const before = first.seen.length;
    rooms.push(await listening(fan, `go-${i}`));
    await until(() => first.seen.length > before + 20);
  }
  await nodes[0].kill();
  await until(() => rooms.every(({ seen }) => seen.length > 50));
  rooms[1].room.leave();
  const before = first.seen.length;
  await until(() => first.seen.length > before + 50);
  on = false;
  await writing;
  for (const index of [0, 2]) {
    const { seen } = rooms[index];
    await until(() => seen.at(-1) === sent[index] - 1, "the last one comes");
    assert.deepEqual(seen, Array.from({ length: seen.length }, (_, i) => seen[0] + i), "in order, none missing, none twice");
  }
  await nodes[0].start();
});

test("a publish over POST that the broker does not confirm is repeated, and delivered once", async (t) => {
  const own = await redis();
  const slow = await node({ broker: own.url, env: { ...WITH_PUBLISH, FANFARE__BROKER__PUBLISH_TIMEOUT: "300ms" } });
  const blocked = await haproxy([slow], BLOCK);
  const { room, seen } = await listening(client(t, blocked.url), "post");
  own.program.signal("SIGSTOP");
  const published = [1, 2, 3].map((i) => room.publish(i));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  own.program.signal("SIGCONT");
  await Promise.all(published);
  await room.publish("end");
  await until(() => seen.includes("end"));
  assert.deepEqual([...seen].sort(), [1, 2, 3, "end"]);
});

test("the last messages come first over a stream, for each channel as many as it asked for", async (t) => {
  const writer = client(t, nodes[1].url);
  for (const name of ["last-a", "last-b"]) for (let i = 0; i < 5; i++) await writer.channel(name).publish(i);
  for (const { url } of nodes) for (const name of ["last-a", "last-b"]) await read(client(t, url).channel(name), 4);
  const fan = client(t, door.url);
  const [a, b] = [fan.channel("last-a", { last: 2 }), fan.channel("last-b", { last: 4 })].map(record);
  await until(() => a.length >= 2 && b.length >= 4);
  await writer.channel("last-a").publish("end");
  await until(() => a.includes("end"));
  assert.deepEqual([a, b], [[3, 4, "end"], [1, 2, 3, 4]]);
});

test("a node without POST /publish refuses a publish over a stream, and messages still come", async (t) => {
  const plain = await node();
  const blocked = await haproxy([plain], BLOCK);
  const { room, seen } = await listening(client(t, blocked.url), "read-only");
  assert.equal((await rejection(room.publish(1))).code, "unsupported");
  await client(t, plain.url).channel("read-only").publish(2);
  await until(() => seen.length);
});

test("a stream has the token, gets a new one when it ends, and loses only the channel that is not allowed", async (t) => {
  const env = { ...WITH_PUBLISH, ...WITH_TOKENS, FANFARE__CHANNELS: '[{ match = "*", subscribe = "token", publish = "token" }]' };
  const guarded = await node({ env });
  const blocked = await haproxy([guarded], BLOCK);
  const rights = { channels: [{ match: "mine", can: ["subscribe", "publish"] }] };
  const tokens = [token("ann", -27, rights), token("ann", 600, rights)];
  let fetched = 0;
  const fan = client(t, blocked.url, { token: () => tokens[Math.min(fetched++, 1)] });
  const { room, seen } = await listening(fan, "mine");
  const error = await rejection((async () => {
    for await (const _ of fan.channel("other"));
  })());
  assert.equal(error.code, "forbidden");
  let sent = 0;
  await until(async () => {
    await room.publish(sent++);
    return fetched === 2 && seen.length > 2;
  });
  await opened(fan);
  await room.publish(sent++);
  await until(() => seen.length === sent);
  assert.deepEqual(seen, [...Array(sent).keys()]);
});

test("a silent stream is found and replaced", async (t) => {
  const wire = await tunnel(door.port);
  const { seen } = await listening(client(t, wire.url), "silent");
  wire.silence();
  await client(t, nodes[1].url).channel("silent").publish("missed");
  await until(() => seen.length === 1);
});
