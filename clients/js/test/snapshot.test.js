// State and messages together: raced against writers.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, listening, rejection } from "./lib/clients.js";
import { node, until } from "./lib/cluster.js";

const RACES = 1000;

let url;
before(async () => ({ url } = await node()));

const tick = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 3));

test("a snapshot and the messages after it are the truth, in 1,000 races with writers", { timeout: 300e3 }, async (t) => {
  // A backend that changes its state first, then publishes. A message that the state already has changes nothing.
  const state = new Map();
  const publisher = client(t, url).channel("truth");
  let on = true;
  let version = 0;
  const writers = Array.from({ length: 4 }, async () => {
    while (on) {
      const key = `k${Math.floor(Math.random() * 10)}`;
      state.set(key, ++version);
      await publisher.publish([key, version]);
      if (Math.random() < 0.2) await tick();
    }
  });
  const load = async () => {
    await tick();
    const copy = new Map(state);
    await tick();
    return copy;
  };
  const readers = await Promise.all(Array.from({ length: 10 }, () => client(t, url)));
  const views = [];
  for (let race = 0; race < RACES / readers.length; race++) {
    await Promise.all(readers.map(async (fan) => {
      const room = fan.channel("truth");
      const view = { room };
      room.on("message", ({ data: [key, number] }) => {
        assert.ok(view.state, "no message comes before the snapshot");
        if (number > (view.state.get(key) ?? 0)) view.state.set(key, number);
      });
      view.state = await room.snapshot(load);
      views.push(view);
      if (views.length > 50) views.shift().room.leave();
      await tick();
    }));
  }
  on = false;
  await Promise.all(writers);
  for (const view of views) {
    const sorted = (map) => JSON.stringify([...map].sort());
    await until(() => sorted(view.state) === sorted(state), "the view is the truth");
  }
});

test("a state that names its position leaves out what it has, so each message counts once, in 1,000 races", async (t) => {
  // A backend that counts what it reads from the channel itself, and knows how far it has read.
  const backend = { count: 0, at: "" };
  const source = await listening(client(t, url), "count");
  source.room.on("message", ({ at }) => Object.assign(backend, { count: backend.count + 1, at }));
  const publisher = client(t, url).channel("count");
  await publisher.publish(0);
  let on = true;
  let published = 1;
  const writing = (async () => {
    while (on) {
      published++;
      await publisher.publish(0);
    }
  })();
  const load = async (position) => {
    await until(() => backend.at >= position);
    const copy = { ...backend };
    await tick();
    return copy;
  };
  const readers = await Promise.all(Array.from({ length: 20 }, () => client(t, url)));
  const views = [];
  for (let race = 0; race < RACES / readers.length; race++) {
    await Promise.all(readers.map(async (fan) => {
      const room = fan.channel("count");
      const view = { room, since: 0 };
      room.on("message", () => view.since++);
      view.state = await room.snapshot(load);
      views.push(view);
      if (views.length > 100) views.shift().room.leave();
      await tick();
    }));
  }
  on = false;
  await writing;
  for (const { state, ...view } of views) {
    await until(() => state.count + views.find(({ room }) => room === view.room).since >= published);
    assert.equal(state.count + views.find(({ room }) => room === view.room).since, published);
  }
});

test("a snapshot that fails gives its error, and the messages that it held", async (t) => {
  const { room, seen } = await listening(client(t, url), "fails");
  const failing = rejection(room.snapshot(async () => {
    await room.publish("held");
    await tick();
    throw new Error("the backend is down");
  }));
  assert.equal((await failing).message, "the backend is down");
  await until(() => seen.length === 1);
  assert.equal(await room.snapshot(() => "again"), "again");
});

test("a snapshot of a room that is left ends", async (t) => {
  const room = client(t, "http://127.0.0.1:1").channel("nowhere");
  const waiting = rejection(room.snapshot(() => assert.fail("there is no position")));
  room.leave();
  assert.equal((await waiting).code, "closed");
});
