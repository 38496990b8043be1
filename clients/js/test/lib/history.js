// What was published and what each reader's callbacks got, for the judge of all tests of delivery (tests/law, in Rust).

import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./cluster.js";

/** In the form that tests/src/bin/judge.rs reads. */
export class History {
  /** The publishes that have not ended: by name. */
  open = new Set();
  outcomes = { acknowledged: 0, failed: 0, unknown: 0, left: 0 };
  #free;
  #lines = [];
  #views = [];

  /** No publish begins until this ends. */
  hold() {
    let release;
    this.#free = new Promise((resolve) => (release = resolve));
    return release;
  }

  async free() {
    await this.#free;
  }

  began(lane, name) {
    this.#lines.push({ publish: name, lane });
    this.open.add(name);
  }

  ended(name, outcome) {
    this.outcomes[outcome]++;
    this.#lines.push({ ended: name, outcome });
    this.open.delete(name);
  }

  /** Its publisher is gone: how it ends stays unknown. */
  left(name) {
    this.outcomes.left++;
    this.open.delete(name);
  }

  /** A publish ended with this code of docs/javascript.md, or with "acknowledged". Two codes leave open whether the message is stored. */
  endedWith(name, code) {
    const known = code === "acknowledged" ? code : "failed";
    this.ended(name, ["unknown", "closed"].includes(code) ? "unknown" : known);
  }

  async publish(room, name, options) {
    await this.free();
    this.began(room.name, name);
    this.endedWith(name, await room.publish(name, options).then(() => "acknowledged", ({ code }) => code));
  }

  /** What a reader of all these lanes gets: a list for each lane, to which its callbacks add names, and null for a `lost`. */
  reader(name, lanes) {
    const met = Object.fromEntries(lanes.map((lane) => [lane, []]));
    for (const lane of lanes) this.#views.push({ reader: name, lane, met: met[lane] });
    return met;
  }

  get losses() {
    return this.#views.filter(({ met }) => met.includes(null)).length;
  }

  get delivered() {
    return this.#views.reduce((sum, { met }) => sum + met.length, 0);
  }

  /** A copy with changed views. */
  changed(change) {
    const copy = new History();
    copy.#lines = this.#lines;
    copy.#views = structuredClone(this.#views);
    change(copy.#views);
    return copy;
  }

  /** What the judge says; `whole` forbids losses that are announced, too. The file stays where the logs are. */
  verdict(name, { whole = false } = {}) {
    const folder = join(ROOT, "tests/output");
    mkdirSync(folder, { recursive: true });
    const file = join(folder, `${name}.jsonl`);
    writeFileSync(file, [...this.#lines, ...this.#views].map((line) => `${JSON.stringify(line)}\n`).join(""));
    const judge = spawnSync(join(ROOT, "target/checked/judge"), [...(whole ? ["--whole"] : []), file], { encoding: "utf8" });
    return { lawful: judge.status === 0, text: `${judge.stdout}${judge.stderr}${judge.error ?? ""}\n(${file})` };
  }
}
