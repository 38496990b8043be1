// Everything that fails, for a while, in Node and in Chromium; the law's judge decides on what the application's callbacks got.
//
// FANFARE_SOAK_SECONDS says for how long; FANFARE_SOAK_SEED repeats the faults of an earlier run. On a broker that keeps its
// log, nothing may be missing, come twice or out of order, and each publish that resolved is delivered once. On a broker that
// forgets it, the same, except behind a `lost`.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Chance } from "./lib/chance.js";
import { client } from "./lib/clients.js";
import { PATIENCE, token } from "./lib/cluster.js";
import { History } from "./lib/history.js";
import { clientFaults, inflict, serverFaults } from "./lib/soak-faults.js";
import { LANES, Stage } from "./lib/soak-stage.js";

const SECONDS = Number(process.env.FANFARE_SOAK_SECONDS ?? 15);
const LONG = SECONDS > 60;
const SEED = Number(process.env.FANFARE_SOAK_SEED ?? (LONG ? Date.now() % 1e6 : 14));

/**
 * Publishes last messages until each reader has them, and names those that never do. One round is enough, except for a reader that
 * was away: if it comes back with a position of a log that is gone, it gets `lost`, and not what was published meanwhile.
 */
const lastMessages = async ({ t, history, door, audience }) => {
  const last = client(t, door.url, { token: token("end", 600), timeout: 120e3 });
  let late = audience;
  for (let round = 0, ends = Date.now() + PATIENCE; Date.now() < ends; round++) {
    const names = Object.fromEntries(LANES.map((lane) => [lane, `end ${round} of ${lane}`]));
    for (const lane of LANES) await history.publish(last.channel(lane), names[lane]);
    const next = Date.now() + 2e3;
    for (late = audience; late.length && Date.now() < next; await new Promise((resolve) => setTimeout(resolve, 20))) {
      const have = await Promise.all(late.map((each) => each.has(names)));
      late = late.filter((_, number) => !have[number]);
    }
    if (!late.length) break;
  }
  return Promise.all(late.map(async (each) => `${each.user} is ${await each.state()} and has not the last messages`));
};

const soak = async (t, { durable, seconds }) => {
  const history = new History();
  const tallied = {};
  const tally = (name) => (tallied[name] = (tallied[name] ?? 0) + 1);
  const stage = await new Stage(t, { history, durable, chance: new Chance(SEED + 1), tally }).set();
  await stage.write();
  const ends = Date.now() + seconds * 1000;
  const [servers, clients] = [new Chance(SEED + 2), new Chance(SEED + 3)];
  await Promise.all([
    inflict(serverFaults(stage, servers), servers, { until: ends, longest: LONG ? 3000 : 800, tally }),
    inflict(clientFaults(stage, clients, { silence: LONG }), clients, { until: ends, longest: LONG ? 4000 : 1000, tally }),
  ]);
  await stage.rest();
  const late = await lastMessages(stage);

  const { lawful, text } = history.verdict(`soak-${durable ? "kept" : "forgotten"}`, { whole: durable });
  const views = `${history.losses} of ${stage.audience.length * LANES.length} views with a lost`;
  const figures = [`publishes ${JSON.stringify(history.outcomes)}`, views, `faults ${JSON.stringify(tallied)}`, text, ...late].join("; ");
  t.diagnostic(figures);
  assert.ok(lawful && !late.length, figures);
  for (const { page } of stage.pages) assert.deepEqual(page.errors, []);
  return history;
};

/** A test that names its seed when it fails. */
const seeded = (name, seconds, work) =>
  test(`${name} (${Math.round(seconds)} s, seed ${SEED})`, { timeout: seconds * 1000 + 240e3 }, work);

seeded("over every fault nothing is missing, nothing comes twice, and each publish is delivered once", SECONDS, async (t) => {
  const { outcomes } = await soak(t, { durable: true, seconds: SECONDS });
  assert.deepEqual([outcomes.failed, outcomes.unknown], [0, 0], "each publish resolves in the end");
});

seeded("a broker that loses its log costs nothing without a lost", SECONDS / 3, async (t) => {
  const history = await soak(t, { durable: false, seconds: SECONDS / 3 });
  assert.ok(history.losses, "the loss of the log is announced");
});
