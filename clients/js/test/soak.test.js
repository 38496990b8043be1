// Everything that fails, for a while: kills, drains, broker restarts, cut and silent wires, short tokens.
//
// FANFARE_SOAK_SECONDS says for how long; the default is short. The law: a reader gets each message once and in one order, or `lost` before
// a gap; and each publish that resolved is delivered once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { client, listening } from "./lib/clients.js";
import { WITH_TOKENS, haproxy, node, redis, token, tunnel, until } from "./lib/cluster.js";

const SECONDS = Number(process.env.FANFARE_SOAK_SECONDS ?? 20);
const READERS = 12;
const WRITERS = 4;

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
const one = (list) => list[Math.floor(Math.random() * list.length)];

test(`${SECONDS} seconds of faults break no promise`, { timeout: SECONDS * 1000 + 240e3 }, async (t) => {
  const broker = await redis({ durable: true });
  const env = { ...WITH_TOKENS, FANFARE__HTTP__PUBLISH: "true", FANFARE__BROKER__PUBLISH_TIMEOUT: "1s", FANFARE__TIMING__DRAIN: "3s" };
  const nodes = await Promise.all([1, 2, 3].map(() => node({ broker: broker.url, env })));
  const door = await haproxy(nodes);
  const blocked = await haproxy(nodes, ["http-request deny if { req.hdr(upgrade) -i websocket }"]);
  const wires = await Promise.all([tunnel(door.port), tunnel(door.port), tunnel(blocked.port)]);
  const join = (index) => client(t, wires[index % wires.length].url, { token: () => token(`user-${index}`, 10), timeout: 120e3 });
  const readers = await Promise.all(Array.from({ length: READERS }, (_, i) => listening(join(i), "soak")));

  let on = true;
  const stored = [];
  const writing = Promise.all(Array.from({ length: WRITERS }, async (_, writer) => {
    const room = join(writer).channel("soak");
    for (let number = 0; on; number++) {
      const name = `${writer}:${number}`;
      await room.publish(name);
      stored.push(name);
      await pause(5);
    }
  }));

  const faults = {
    kill: async (target = one(nodes)) => (await target.kill(), await target.start()),
    drain: async (target = one(nodes)) => (await target.kill("SIGTERM"), await target.start()),
    broker: () => broker.restart(),
    stall: async () => (broker.program.signal("SIGSTOP"), await pause(2500), broker.program.signal("SIGCONT")),
    cut: async () => one(wires).cut(),
    silence: async () => one(wires).silence(),
  };
  const ends = Date.now() + SECONDS * 1000;
  const happened = [];
  while (Date.now() < ends) {
    const fault = one(Object.keys(faults));
    happened.push(fault);
    await faults[fault]();
    await pause(500 + Math.random() * 1500);
  }
  on = false;
  await writing;
  await client(t, door.url, { token: token("end", 600) }).channel("soak").publish("end");
  await until(() => readers.every(({ seen }) => seen.includes("end")), `all are there after ${happened}`);

  const truth = new Set(stored);
  const whole = readers.find(({ seen }) => !seen.includes("lost"))?.seen;
  for (const { seen } of readers) {
    const messages = seen.filter((name) => name !== "lost");
    assert.equal(new Set(messages).size, messages.length, `nothing twice after ${happened}`);
    if (seen.includes("lost")) continue;
    assert.deepEqual(seen, whole, "one order");
    assert.equal(messages.filter((name) => truth.has(name)).length, truth.size, `each publish that resolved, after ${happened}`);
  }
  t.diagnostic(`${stored.length} publishes, ${happened.length} faults; ${readers.filter(({ seen }) => seen.includes("lost")).length} of ${READERS} readers had a lost`);
});
