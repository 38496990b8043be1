// The list of who is there, alone: lists and changes in any order that a node gives them in, against a model.

import assert from "node:assert/strict";
import { test } from "node:test";
import { follow } from "../src/members.js";
import { Chance } from "./lib/chance.js";

const failure = ({ code, retry = false }) => Object.assign(new Error(code), { code, retry });
const settled = () => new Promise((resolve) => setImmediate(resolve));
const named = (names) => [...names].map((user) => ({ user }));

/** A list that asks `read`, with what it told. */
const following = (read) => {
  const told = [];
  let shown = { members: [], count: 0, partial: true };
  const take = follow(read, (now, event, value) => {
    shown = now;
    if (event !== "presence") told.push(`${event} ${value.user ?? value.client}`);
  }, failure);
  return { take, told, shown: () => shown, names: () => shown.members.map(({ user, client }) => user ?? client).sort() };
};

const never = () => assert.fail("it asked");

test("a list, then changes, each of which may come twice", () => {
  const list = following(never);
  list.take({ members: named(["ann", "bob"]), count: 2 });
  assert.deepEqual([list.names(), list.told, list.shown().partial], [["ann", "bob"], [], false]);
  for (let twice = 0; twice < 2; twice++) list.take({ joined: named(["cat"]), left: named(["ann"]), count: 2 });
  assert.deepEqual([list.names(), list.told], [["bob", "cat"], ["join cat", "leave ann"]]);
  list.take({ joined: [{ user: "bob", info: 1 }], count: 2 });
  assert.deepEqual(list.shown().members.find(({ user }) => user === "bob"), { user: "bob", info: 1 }, "other information is no join");
  assert.equal(list.told.length, 2);
});

test("a later list says what has changed meanwhile, and a partial one takes no member away", () => {
  const list = following(never);
  list.take({ members: named(["ann", "bob"]), count: 2 });
  list.take({ over: true });
  list.take({ members: named(["cat"]), count: 1, partial: true });
  assert.deepEqual([list.names(), list.told, list.shown().partial], [["ann", "bob", "cat"], ["join cat"], true]);
  list.take({ members: named(["bob", "cat"]), count: 2 });
  assert.deepEqual([list.names(), list.told, list.shown().partial], [["bob", "cat"], ["join cat", "leave ann"], false]);
  list.take({ over: true });
});

test("names are only names", () => {
  const list = following(never);
  const names = ["__proto__", "constructor", "toString", "<img src=x onerror=1>", "a:b", ":x"];
  list.take({ members: [...named(names), { client: "__proto__" }, { client: "x" }], count: names.length + 2 });
  assert.equal(list.shown().members.length, names.length + 2, "a client and a user of one name are two");
  list.take({ left: named(["__proto__", ":x"]), count: names.length });
  assert.deepEqual(list.names(), [...names.slice(1, 5), "__proto__", "x"].sort());
  list.take({ over: true });
});

test("numbers without names are a number, also if it is large", () => {
  const list = following(never);
  list.take({ members: [], count: 3 });
  list.take({ count: 30_000 });
  assert.deepEqual([list.shown().count, list.shown().members, list.shown().partial], [30_000, [], false]);
  list.take({ over: true });
});

test("from 20,000 members on there is a number only, and nobody has left or come", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const all = named(Array.from({ length: 19_999 }, (_, i) => `m${i}`));
  const pages = (after = 0) => ({ members: all.slice(after, after + 1000), count: 19_999, next: after + 1000 < 19_999 ? after + 1000 : undefined });
  const list = following(({ after }) => pages(after));
  list.take(undefined);
  for (let page = 0; page < 25; page++) await settled();
  assert.deepEqual([list.shown().members.length, list.shown().partial], [19_999, false]);
  list.take({ count: 20_000 });
  assert.deepEqual([list.shown().members.length, list.shown().count, list.shown().partial], [0, 20_000, true]);
  list.take({ joined: named(["late"]), count: 19_999 });
  t.mock.timers.tick(10_001);
  for (let page = 0; page < 25; page++) await settled();
  assert.deepEqual([list.shown().members.length, list.shown().partial, list.told], [19_999, false, []]);
});

test("a list that begins above the limit has names as soon as it is below", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const list = following(() => ({ members: named(["ann", "bob"]), count: 2 }));
  list.take({ members: [], count: 25_000 });
  assert.deepEqual([list.shown().count, list.shown().partial], [25_000, true]);
  t.mock.timers.tick(60_000);
  list.take({ left: named(["cat"]), count: 2 });
  t.mock.timers.tick(10_001);
  await settled();
  assert.deepEqual([list.names(), list.shown().partial, list.told], [["ann", "bob"], false, []]);
});

test("a refusal empties the list, says why, and is not repeated", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const list = following(never);
  list.take({ members: named(["ann"]), count: 1 });
  list.take({ ended: "forbidden" });
  assert.deepEqual([list.names(), list.shown().error.code, list.told], [[], "forbidden", []]);
  t.mock.timers.tick(60_000);
});

test("a list that does not agree with its number is read again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let asked = 0;
  const list = following(() => (asked++, { members: named(["ann"]), count: 1 }));
  list.take({ members: named(["ann", "ghost"]), count: 1 });
  t.mock.timers.tick(10_001);
  await settled();
  assert.deepEqual([list.names(), list.told, asked], [["ann"], ["leave ghost"], 1]);
  t.mock.timers.tick(60_000);
  assert.equal(asked, 1, "and then no more");
});

test("a page that fails is asked for again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let asked = 0;
  const list = following(() => {
    if (asked++) return { members: named(["ann", "bob"]), count: 2 };
    throw failure({ code: "timeout", retry: true });
  });
  list.take({ members: named(["ann"]), count: 2, next: "user:ann" });
  await settled();
  assert.deepEqual([list.shown().partial, list.shown().error.code], [true, "timeout"]);
  t.mock.timers.tick(10_001);
  await settled();
  assert.deepEqual([list.names(), list.shown().partial, list.shown().error], [["ann", "bob"], false, undefined]);
});

test("2,000 random histories: pages that are ahead of the changes, changes in between, and ends: the list is the node's", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  for (let seed = 1; seed <= 2000; seed++) {
    const chance = new Chance(seed);
    const random = () => chance.next();
    const pick = (most) => Math.floor(random() * most);
    const here = new Set();
    const wire = []; // what the node has sent and the client has not read
    const move = () => {
      const name = `m${pick(12)}`;
      const joins = !here.delete(name);
      if (joins) here.add(name);
      wire.push({ [joins ? "joined" : "left"]: named([name]), count: here.size });
    };
    const page = (after = "") => {
      const rest = [...here].sort().filter((name) => name > after);
      const members = named(rest.slice(0, 3));
      return { members, count: here.size, next: rest.length > 3 ? members.at(-1).user : undefined };
    };
    // A page has all that the node knows, also what is still on the wire. Then more happens.
    const list = following(({ after }) => new Promise((resolve) => wire.push(() => resolve(page(after)))));
    const deliver = async () => {
      const next = wire.shift();
      if (typeof next === "function") next();
      else if (next) list.take(next);
      await settled();
    };
    for (let step = 0; step < 40; step++) {
      const what = random();
      if (what < 0.5) move();
      else if (what < 0.9) await deliver();
      else {
        if (random() < 0.5) wire.length = 0;
        list.take({ over: true });
        wire.length = 0;
        list.take(page());
      }
    }
    while (wire.length) await deliver();
    t.mock.timers.tick(10_001);
    for (let rounds = 0; rounds < 12; rounds++) await deliver();
    assert.deepEqual(list.names(), [...here].sort(), `seed ${seed}`);
    assert.equal(list.shown().count, here.size);
    list.take({ over: true });
  }
});
