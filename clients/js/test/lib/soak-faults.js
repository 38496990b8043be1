// What goes wrong in the soak.

import { until } from "./cluster.js";

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
const restart = async (node, signal) => (await node.kill(signal), await node.start());

const ready = ({ url }) => fetch(`${url}/ready`).then(({ ok }) => ok, () => false);

/** Faults of nodes and of the broker, by name. */
export const serverFaults = ({ nodes, broker, history, durable }, chance) => ({
  "node killed": () => restart(chance.one(nodes), "SIGKILL"),
  "node restarted": () => restart(chance.one(nodes), "SIGTERM"),
  "rolling restart": async () => {
    for (const each of nodes) await restart(each, "SIGTERM");
  },
  "broker restarted": async () => {
    const signal = chance.one(["SIGKILL", "SIGTERM"]);
    if (durable) return broker.restart({ signal });
    // A node knows only what it has read of the new log. A publish that is stored before that and repeated later would stand at two
    // places, of which its readers know the second one only: so none is under way until all nodes have the new log.
    const release = history.hold();
    const all = (is) => until(async () => (await Promise.all(nodes.map(ready))).every((one) => one === is), `the nodes are ready: ${is}`);
    await until(() => !history.open.size, "all publishes have ended");
    await broker.restart({ signal, meanwhile: () => all(false) });
    await all(true);
    release();
  },
  "broker stopped for a while": async () => {
    broker.program.signal("SIGSTOP");
    await pause(2500);
    broker.program.signal("SIGCONT");
  },
});

/** Faults between the clients and HAProxy, and in pages, by name. A silent wire takes half a minute to be noticed. */
export const clientFaults = ({ wires, pages }, chance, { silence }) => ({
  "wire cut": () => chance.one(wires).cut(),
  "page reloaded": () => chance.one(pages).reload(),
  "page offline": () => chance.one(pages).offline(() => pause(chance.between(500, 3000))),
  ...(silence && { "wire silent": () => chance.one(wires).silence() }),
});

/** One fault after the other, until the time is over and each has happened. */
export const inflict = async (faults, chance, { until: ends, longest, tally }) => {
  for (let kinds = []; kinds.length || Date.now() < ends; ) {
    if (!kinds.length) kinds = chance.shuffled(Object.keys(faults));
    const kind = kinds.pop();
    tally(kind);
    await faults[kind]();
    await pause(chance.between(200, longest));
  }
};
