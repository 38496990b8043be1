// Two thousand clients at once: how fast they come back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { client, opened } from "./lib/clients.js";
import { haproxy, node, redis, until } from "./lib/cluster.js";

const CLIENTS = 2000;
/** Connections that a node takes per second; after a quiet second twice as many in one (docs/configuration.md). */
const RATE = 150;
/** In seconds: how long a node goes on after its signal, and over how long it then sends its clients away. */
const DRAIN_WAIT = 0.5;
const DRAIN = 4;

/** In milliseconds: a timer counts from the begin of the event loop's turn, which is long while hundreds of connections end. */
const LAG = 250;

/** HAProxy's log of the upgrades: when each was accepted, the milliseconds until the node's answer, the node. */
const LOG = ["log stdout format raw local0", "option logasap", 'log-format "upgrade %Ts %ms %TR %Tw %Tc %Tr %ST %s"'];
const upgrades = (log) =>
  [...log.matchAll(/^upgrade (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) 101 (\S+)/gm)]
    .map(([, seconds, ...rest]) => ({ at: Number(seconds) + rest.slice(0, 5).reduce((sum, part) => sum + Number(part), 0) / 1000, node: rest[5] }))
    .sort((a, b) => a.at - b.at);

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** That never more had happened by a time, in seconds, than allowed. A busy machine sees things late, which breaks no such bound. */
const neverMore = (times, allowed, what) =>
  times.forEach((time, number) => assert.ok(number + 1 <= allowed(time), `${what}: ${number + 1} within ${time.toFixed(2)} s`));

/** How many of these times, which are in order, fall into each second, and the most in any. */
const perSecond = (times) => {
  const each = [];
  let most = 0;
  for (let first = 0, last = 0; last < times.length; last++) {
    while (times[last] - times[first] >= 1) first++;
    most = Math.max(most, last - first + 1);
    each[Math.floor(times[last])] = (each[Math.floor(times[last])] ?? 0) + 1;
  }
  return `${Array.from(each, (number) => number ?? 0).join(" ")}, at most ${most} in one`;
};

test("2,000 clients that lose their connection come back within the accept rate, and spread as a draining node says", { timeout: 240e3 }, async (t) => {
  const broker = await redis();
  const env = {
    FANFARE__HTTP__ACCEPT_RATE: String(RATE),
    FANFARE__HTTP__TRUSTED_PROXIES: "127.0.0.1",
    FANFARE__TIMING__DRAIN: `${DRAIN}s`,
    FANFARE__TIMING__DRAIN_WAIT: `${DRAIN_WAIT * 1000}ms`,
  };
  const nodes = await Promise.all([1, 2, 3].map(() => node({ broker: broker.url, env })));
  const door = await haproxy(nodes, LOG, { maxconn: 5000, logged: true });

  let began, arrivals, left, early; // `left`: how each connection ended; `early`: tries that came before their time
  const now = () => Date.now() / 1000;
  const begin = () => ([began, arrivals, left, early] = [now(), 0, [], 0]);
  begin();
  let messages = 0;
  const fans = Array.from({ length: CLIENTS }, async (_, number) => {
    await pause((number * 1000) / (2 * RATE)); // slower than the nodes take them
    const fan = client(t, door.url, { fallback: false });
    let notBefore;
    fan.on("state", ({ state, retryIn, error }) => {
      if (state === "waiting") {
        notBefore = performance.now() + retryIn;
        left.push({ code: error.code, retryIn });
      } else if (state === "connecting" && performance.now() < notBefore - LAG) early++;
      else if (state === "open") arrivals++;
    });
    await opened(fan);
    fan.channel("crowd").on("message", () => messages++);
    return fan;
  });
  const all = await Promise.all(fans);

  /** Waits until all are back; gives the times of their arrivals. */
  const back = async (what, number) => {
    await until(() => arrivals >= number && all.every(({ state }) => state === "open"), `all are back: ${what}`);
    const found = upgrades(door.log()).filter(({ at }) => at >= began).map(({ at, node }) => ({ at: at - began, node }));
    assert.ok(found.length >= number, `${found.length} in HAProxy's log`);
    const times = found.map(({ at }) => at);
    const byNode = nodes.map(({ name }) => found.filter(({ node }) => node === name).map(({ at }) => at));
    t.diagnostic(`${what}: ${times.length} arrivals, per second ${perSecond(times)}; by node ${byNode.map(perSecond).join("; ")}`);
    assert.ok(early <= number / 20, `${early} of ${number} came before their time`);
    // The parts of a time in HAProxy's log are rounded down: 20 ms for all.
    for (const node of byNode) neverMore(node, (time) => RATE * (1.02 + time), "a node takes no more than its rate");
    return times;
  };

  // A node sends its clients away, one by one, and tells each when to come back.
  const own = Number(/^fanfare_connections(?:\{[^}]*\})? (\d+)/m.exec(await (await fetch(`${nodes[0].url}/metrics`)).text())[1]);
  assert.ok(own >= CLIENTS / 4, `${own} are on the node`);
  begin();
  await nodes[0].kill("SIGTERM");
  const moved = await back("one node drained", own);
  assert.deepEqual([...new Set(left.map(({ code }) => code))], ["close_1012"], "each has a hint");
  // Without a hint the first pause is half a second at most.
  assert.ok(left.filter(({ retryIn }) => retryIn > 500).length > own / 4 && left.every(({ retryIn }) => retryIn <= 1000), "and obeys it");
  const pace = (time) => (1.05 * own * (time - DRAIN_WAIT)) / DRAIN + 0.05 * own;
  neverMore(moved, pace, "as evenly as the node says");
  await nodes[0].start();

  // All connections are cut at once, without a word.
  begin();
  await door.cut();
  await back("all cut at once", CLIENTS);

  const before = messages;
  await client(t, door.url).channel("crowd").publish("all here?");
  await until(() => messages - before >= CLIENTS, "all are subscribed again");
});
