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
  const door = await haproxy(nodes, [], { maxconn: 5000 });

  let began, arrivals, left, early;
  const begin = () => ([began, arrivals, left, early] = [performance.now(), [], [], 0]);
  const since = () => (performance.now() - began) / 1000;
  begin();
  let messages = 0;
  const fans = Array.from({ length: CLIENTS }, async (_, number) => {
    await pause((number * 1000) / (2 * RATE)); // slower than the nodes take them
    const fan = client(t, door.url, { fallback: false });
    let notBefore;
    fan.on("state", ({ state, node, retryIn, error }) => {
      if (state === "waiting") {
        notBefore = performance.now() + retryIn;
        left.push({ at: since(), hinted: error.code === "close_1012" && retryIn <= 1000 });
      } else if (state === "connecting" && performance.now() < notBefore - 2) early++;
      else if (state === "open") arrivals.push({ at: since(), node });
    });
    await opened(fan);
    fan.channel("crowd").on("message", () => messages++);
    return fan;
  });
  const all = await Promise.all(fans);

  const back = async (what, number) => {
    await until(() => arrivals.length >= number && all.every(({ state }) => state === "open"), `all are back: ${what}`);
    const times = arrivals.map(({ at }) => at);
    const byNode = nodes.map(({ name }) => arrivals.filter(({ node }) => node === name).map(({ at }) => at));
    t.diagnostic(`${what}: ${times.length} arrivals, per second ${perSecond(times)}; by node ${byNode.map(perSecond).join("; ")}`);
    assert.equal(early, 0, "each waits as long as it is to");
    for (const node of byNode) neverMore(node, (time) => RATE * (1 + time), "a node takes no more than its rate");
  };

  // A node sends its clients away, one by one, and tells each when to come back.
  const own = Number(/^fanfare_connections(?:\{[^}]*\})? (\d+)/m.exec(await (await fetch(`${nodes[0].url}/metrics`)).text())[1]);
  assert.ok(own >= CLIENTS / 4, `${own} are on the node`);
  begin();
  await nodes[0].kill("SIGTERM");
  await back("one node drained", own);
  assert.ok(left.every(({ hinted }) => hinted), "each has a hint");
  const pace = (time) => (1.05 * own * (time - DRAIN_WAIT)) / DRAIN + 0.05 * own;
  neverMore(arrivals.map(({ at }) => at), pace, "as evenly as the node says");
  await nodes[0].start();

  // All connections are cut at once, without a word.
  begin();
  await door.cut();
  await back("all cut at once", CLIENTS);

  const before = messages;
  await client(t, door.url).channel("crowd").publish("all here?");
  await until(() => messages - before >= CLIENTS, "all are subscribed again");
});
