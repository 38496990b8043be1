// The judge of the soak finds what it must find: a test that never fails proves nothing.

import assert from "node:assert/strict";
import { test } from "node:test";
import { History } from "./lib/history.js";

/** Two readers of ten messages, each acknowledged before the next one. */
const good = () => {
  const history = new History();
  const readers = ["one", "two"].map((name) => history.reader(name, ["lane"]));
  for (let number = 0; number < 10; number++) {
    history.began("lane", `m${number}`);
    history.ended(`m${number}`, "acknowledged");
    for (const { lane } of readers) lane.push(`m${number}`);
  }
  return history;
};

const judged = (change, options) => good().changed(([{ met }]) => change(met)).verdict("judge-test", options);

test("a good history is lawful, and so is a gap behind a lost", () => {
  assert.equal(judged(() => {}, { whole: true }).lawful, true);
  const gap = judged((met) => met.splice(4, 2, null));
  assert.ok(gap.lawful, gap.text);
  assert.match(gap.text, /acked 10, delivered 18, duplicate 0, lost-marked 1, silent-loss 0/);
});

for (const [what, change, why, options] of [
  ["one message is missing", (met) => met.splice(4, 1), "`m4` was acknowledged, is missing"],
  ["the last message is missing", (met) => met.pop(), "`m9` was acknowledged, is missing"],
  ["a lost stands at another place than the gap", (met) => (met.splice(4, 1), met.push(null)), "`m4` was acknowledged, is missing"],
  ["one message comes twice", (met) => met.splice(6, 0, "m4"), "`m4` came twice"],
  ["two messages are exchanged", (met) => ([met[4], met[5]] = [met[5], met[4]]), "another reader has it reversed"],
  ["a message comes that was never published", (met) => met.push("m10"), "`m10` was never published"],
  ["a lost comes where nothing may be lost", (met) => met.splice(4, 1, null), "messages are lost where nothing may be", { whole: true }],
]) {
  test(`it is found that ${what}`, () => {
    const { lawful, text } = judged(change, options);
    assert.ok(!lawful && text.includes(why), text);
  });
}

test("a publish that failed must not be delivered, and one of unknown end may be", () => {
  for (const [outcome, lawful] of [["failed", false], ["unknown", true]]) {
    const history = new History();
    const met = history.reader("one", ["lane"]);
    history.began("lane", "a");
    history.ended("a", "acknowledged");
    history.began("lane", "b");
    history.ended("b", outcome);
    met.lane.push("a", "b");
    assert.equal(history.verdict("judge-test").lawful, lawful);
  }
});
