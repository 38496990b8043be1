// Who is in a room: real nodes, in Node and in Chromium, over sockets, streams and shared connections.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { open } from "./lib/browser.js";
import { client, opened } from "./lib/clients.js";
import { PATIENCE, WITH_TOKENS, haproxy, node, redis, token, tunnel, until } from "./lib/cluster.js";

const RULES = `[{ match = "count:*", presence = "counts" }, { match = "plain" }, { match = "*", presence = "members", see_presence = "anyone" }]`;
const ENV = {
  ...WITH_TOKENS, FANFARE__AUTH__ANONYMOUS: "on", FANFARE__HTTP__PUBLISH: "true", FANFARE__CHANNELS: RULES,
  FANFARE__PRESENCE__LINGER: "1s", FANFARE__CLUSTER__LEASE: "3s",
};

let broker, nodes;
before(async () => {
  broker = await redis();
  nodes = await Promise.all([1, 2].map(() => node({ broker: broker.url, env: ENV })));
});

const anything = { channels: [{ match: "*", can: ["subscribe", "publish", "history", "presence"] }] };
const user = (t, url, name, info, options) => client(t, url, { token: token(name, 600, { ...anything, info }), ...options });
const names = (room) => room.members.map(({ user, client }) => user ?? client).sort();

/** A room with a list, and what it said of others: a client may see its own subscription come. */
const watching = async (fan, name, { wanted, own } = {}) => {
  const room = fan.channel(name, { presence: true });
  const told = [];
  fan.on("state", ({ user }) => (own ??= user));
  for (const event of ["join", "leave"]) room.on(event, ({ user }) => user !== own && told.push(`${event} ${user}`));
  const has = (list) => until(() => !room.partial && names(room).join() === list.join(), `${list} are there, not ${names(room)} ${room.partial}`);
  if (wanted) await has(wanted);
  return { room, told, has };
};

test("a room knows who is there, on all nodes, and who comes and leaves", async (t) => {
  const ann = await watching(user(t, nodes[0].url, "ann", { name: "Ann" }), "lobby", { wanted: ["ann"] });
  const fan = user(t, nodes[1].url, "bob");
  const bob = await watching(fan, "lobby", { wanted: ["ann", "bob"] });
  assert.deepEqual(bob.room.members.find(({ user }) => user === "ann"), { user: "ann", info: { name: "Ann" } });
  await ann.has(["ann", "bob"]);
  assert.deepEqual([ann.told, ann.room.count, bob.told], [["join bob"], 2, []]);
  // Another device of hers is no one else.
  const second = await watching(user(t, nodes[1].url, "ann", { name: "Ann" }), "lobby", { wanted: ["ann", "bob"] });
  await ann.room.publish("hello");
  second.room.leave();
  fan.close();
  await ann.has(["ann"]);
  assert.deepEqual(ann.told, ["join bob", "leave bob"]);
});

test("names are only names", async (t) => {
  const hostile = ["<img src=x onerror=1>", "__proto__", "constructor"];
  const first = await watching(user(t, nodes[0].url, "eve"), "hostile");
  hostile.forEach((name, at) => user(t, nodes[at % 2].url, name, { ["__proto__"]: "x" }).channel("hostile", { presence: true }));
  await first.has([...hostile, "eve"].sort());
  assert.deepEqual(first.told.sort(), hostile.map((name) => `join ${name}`).sort());
});

test("a room that resumes on another node has the list anew, and hears once what has changed meanwhile", async (t) => {
  const wires = await Promise.all(nodes.map(({ port }) => tunnel(port)));
  const door = await haproxy(wires.map(({ url }, at) => ({ name: `n${at}`, port: new URL(url).port })));
  await watching(user(t, nodes[0].url, "watcher"), "resume", { wanted: ["watcher"] });
  const { room, told, has } = await watching(user(t, door.url, "mover"), "resume", { wanted: ["mover", "watcher"] });
  const gone = user(t, nodes[1].url, "gone");
  await watching(gone, "resume", { wanted: ["gone", "mover", "watcher"] });
  await has(["gone", "mover", "watcher"]);
  for (const wire of wires) wire.off(true);
  await until(() => room.partial, "it knows that its list is old");
  gone.close();
  const late = await watching(user(t, nodes[1].url, "late"), "resume");
  await late.has(["late", "watcher"]);
  for (const wire of wires) wire.off(false);
  await has(["late", "mover", "watcher"]);
  assert.deepEqual(told, ["join gone", "join late", "leave gone"]);
});

test("a longer list is read to its end, and pages can be read without a subscription", async (t) => {
  const many = Array.from({ length: 230 }, (_, i) => `m${String(i).padStart(3, "0")}`);
  for (const [at, name] of many.entries()) user(t, nodes[at % 2].url, name).channel("long", { presence: true });
  const { room, has } = await watching(user(t, nodes[0].url, "n"), "long");
  await has([...many, "n"]);
  const reader = client(t, nodes[1].url).channel("long");
  const all = [];
  for (let after; ; ) {
    const { members, next, count } = await reader.presence({ after, limit: 100 });
    assert.equal(count, 231);
    all.push(...members.map(({ user }) => user));
    if (!next) break;
    after = next;
  }
  assert.deepEqual(all, [...many, "n"]);
  assert.equal(room.count, 231);
});

test("a channel with numbers has a number", async (t) => {
  const room = client(t, nodes[0].url).channel("count:1", { presence: true });
  const counts = [];
  room.on("presence", ({ count, members }) => counts.push([count, members.length]));
  const others = [1, 2].map((at) => client(t, nodes[at - 1].url));
  for (const fan of others) fan.channel("count:1").on("message", () => {});
  await until(() => room.count === 3);
  others[0].close();
  await until(() => room.count === 2);
  assert.ok(counts.every(([, members]) => members === 0), JSON.stringify(counts));
});

test("who may not see the list has the messages, and knows why", async (t) => {
  const room = client(t, nodes[0].url).channel("plain", { presence: true });
  const [seen, errors] = [[], []];
  room.on("message", ({ data }) => seen.push(data));
  room.on("unsubscribed", ({ reason }) => assert.fail(reason));
  room.on("presence", ({ error }) => errors.push(error?.code));
  await until(() => errors.length);
  await until(() => room.publish("hello").then(() => seen.length));
  assert.deepEqual([errors, room.members, room.partial], [["forbidden"], [], true]);
});

test("a room with a list joins another one without, and the messages go on", async (t) => {
  const fan = user(t, nodes[0].url, "ann");
  const plain = fan.channel("both");
  const seen = [];
  plain.on("message", ({ data }) => seen.push(data));
  plain.on("lost", () => seen.push("lost"));
  let on = true;
  let sent = 0;
  const writer = client(t, nodes[1].url).channel("both");
  const writing = (async () => {
    while (on) await writer.publish(sent++);
  })();
  await until(() => seen.length > 20);
  const { has } = await watching(fan, "both");
  await has(["ann"]);
  on = false;
  await writing;
  await until(() => seen.at(-1) === sent - 1);
  assert.deepEqual(seen, Array.from({ length: seen.length }, (_, i) => seen[0] + i), "none missing, none twice");
});

test("after the broker has lost its records the list becomes right again", async (t) => {
  const own = await redis();
  const both = await Promise.all([1, 2].map(() => node({ broker: own.url, env: ENV })));
  const ann = await watching(user(t, both[0].url, "ann"), "wiped", { wanted: ["ann"] });
  const bob = await watching(user(t, both[1].url, "bob"), "wiped", { wanted: ["ann", "bob"] });
  await ann.has(["ann", "bob"]);
  await own.command("FLUSHALL");
  const cat = await watching(user(t, both[0].url, "cat"), "wiped");
  for (const { has } of [ann, bob, cat]) await has(["ann", "bob", "cat"]);
  assert.deepEqual([ann.told, bob.told], [["join bob", "join cat"], ["join cat"]]);
});

test("over a stream a room has the list and its changes too, also when another channel begins a new stream", async (t) => {
  const blocked = await haproxy(nodes, ["http-request deny if { req.hdr(upgrade) -i websocket }"]);
  const fan = user(t, blocked.url, "ann");
  const { room, told, has } = await watching(fan, "stream", { wanted: ["ann"], own: "ann" });
  const bob = user(t, nodes[0].url, "bob");
  await watching(bob, "stream", { wanted: ["ann", "bob"] });
  await has(["ann", "bob"]);
  const other = await watching(fan, "stream-2", { wanted: ["ann"], own: "ann" });
  bob.close();
  await has(["ann"]);
  assert.deepEqual([told, other.told], [["join bob", "leave bob"], []]);
  const hidden = fan.channel("plain", { presence: true });
  let error;
  hidden.on("presence", (now) => (error = now.error));
  await until(() => error?.code === "forbidden");
  assert.equal(room.partial, false);
});

test("tabs that share a connection all have the list, also the one that comes late and when the leader goes", async (t) => {
  const ann = token("ann", 600, anything);
  const tab = async () => {
    const page = await open(`${nodes[0].url}/live`);
    await page.evaluate(async (token) => {
      const { connect } = await import("/fanfare.js");
      const fan = connect("/", { share: true, token });
      window.told = [];
      window.room = fan.channel("tabs", { presence: true });
      for (const event of ["join", "leave"]) room.on(event, ({ user }) => user !== "ann" && told.push(`${event} ${user}`));
      window.names = () => (room.partial ? "partial" : room.members.map(({ user }) => user).sort().join());
    }, ann);
    page.has = (names) => page.waitForFunction((names) => window.names() === names, { timeout: PATIENCE, polling: 20 }, names);
    return page;
  };
  const first = await tab();
  await first.has("ann");
  const second = await tab();
  await second.has("ann");
  const bob = user(t, nodes[1].url, "bob");
  await watching(bob, "tabs", { wanted: ["ann", "bob"] });
  const third = await tab();
  for (const page of [first, second, third]) await page.has("ann,bob");
  await first.close();
  bob.close();
  for (const page of [second, third]) await page.has("ann");
  assert.deepEqual(await second.evaluate("told"), ["join bob", "leave bob"]);
  assert.deepEqual(await third.evaluate("told"), ["leave bob"]);
  assert.deepEqual([second.errors, third.errors], [[], []]);
  await Promise.all([second.close(), third.close()]);
});

test("a room that is left is a member no longer", async (t) => {
  const stays = await watching(user(t, nodes[0].url, "stays"), "left", { wanted: ["stays"] });
  const fan = user(t, nodes[1].url, "goes");
  const goes = await watching(fan, "left", { wanted: ["goes", "stays"] });
  await opened(fan);
  goes.room.leave();
  await stays.has(["stays"]);
  assert.deepEqual(stays.told, ["join goes", "leave goes"]);
});
