// Every page that the programs of this repository serve: axe-core finds no violation, on a desktop and on a phone, in light and in dark.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { file, open } from "./lib/browser.js";
import { client } from "./lib/clients.js";
import { PATIENCE, ROOT, WITH_TOKENS, node, token, until } from "./lib/cluster.js";

const children = [];
after(() => children.forEach((child) => child.kill("SIGKILL")));

/** Starts a program of the build on a free port, and gives the address that it prints. */
const program = async (name) => {
  const path = join(ROOT, "target/checked", name);
  assert.ok(existsSync(path), `${name} is not built: cargo build --profile checked --workspace --bins --examples`);
  const env = { PATH: process.env.PATH, FANFARE__HTTP__LISTEN: "127.0.0.1:0", FANFARE__API__LISTEN: "off" };
  const child = spawn(path, [], { env, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
  const [, address] = await until(() => /listens on http:\/\/([\d.]+:\d+)/.exec(output), `${name} listens`);
  return `http://${address}`;
};

const waitFor = (page, js) => page.waitForFunction(js, { timeout: PATIENCE, polling: 20 });

/** Looks at the page in each size and scheme. */
const check = async (page, when) => {
  await page.evaluate(await file("node_modules/axe-core/axe.min.js"));
  for (const width of [1280, 360]) {
    for (const value of ["light", "dark"]) {
      await page.setViewport({ width, height: 800 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
      const found = await page.evaluate(async () => {
        const { violations } = await axe.run();
        return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`));
      });
      assert.deepEqual(found, [], `${when}, ${width} px, ${value}`);
      assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), `${when}: nothing is wider than ${width} px`);
    }
  }
};

test("the page at /, before and after use, and without its node", async () => {
  const gateway = await node();
  const page = await open(gateway.url);
  await waitFor(page, `document.querySelector("#channels [data-channel=news][data-state=open]")`);
  await check(page, "fresh");
  await page.type("#data", '{"good":"morning"}\n');
  await waitFor(page, `document.querySelectorAll(".message").length === 1`);
  await page.click("#kill");
  await waitFor(page, `document.querySelector("[data-topic=resume].done")`);
  await page.click("#earlier");
  await page.click("#sinceForm button");
  await waitFor(page, `document.querySelector("[data-topic=positions].done")`);
  await page.type("#channel", "two words\n");
  await waitFor(page, `document.querySelector("#subscribeNote").textContent`);
  await page.evaluate(`document.querySelectorAll("details").forEach((code) => (code.open = true))`);
  await check(page, "used");
  await gateway.kill();
  await waitFor(page, `document.querySelector("#state[data-state=closed]")`);
  await page.type("#data", "away\n");
  await waitFor(page, `document.querySelector("#result.error")`);
  await check(page, "without its node");
  assert.deepEqual(page.errors, []);
  await page.close();
});

test("the page at / with members, among them a long name, more than it shows, and a list that is not whole", async (t) => {
  const env = { FANFARE__CHANNELS: `[{ match = "*", presence = "members" }]`, FANFARE__LIMITS__CHANNELS_PER_USER: "1000" };
  const gateway = await node({ env: { ...env, ...WITH_TOKENS, FANFARE__AUTH__ANONYMOUS: "on" } });
  const page = await open(gateway.url);
  await waitFor(page, `document.querySelectorAll("#members li").length === 1`);
  await check(page, "alone, before the node knows that it is alone");
  const rights = { info: { name: "Ann" }, channels: [{ match: "*", can: ["subscribe", "presence"] }] };
  const names = ["ann", "a".repeat(120), ...Array.from({ length: 110 }, (_, i) => `member-${i}`)];
  for (const name of names) client(t, gateway.url, { token: token(name, 600, rights) }).channel("news").on("message", () => {});
  await waitFor(page, `document.querySelector("#members").innerText.includes("and 13 more")`);
  await waitFor(page, `document.querySelector("#presentNote").hidden`);
  await check(page, "crowded");
  assert.deepEqual(page.errors, []);
  await page.close();
});

test("the page of the echo server", async () => {
  const page = await open(await program("echo-server"));
  await waitFor(page, `document.querySelector("#status[data-state=open]")`);
  await check(page, "fresh");
  await page.type("#message", "hello\n");
  await waitFor(page, `document.querySelector("#output").textContent.includes("Received: hello")`);
  await check(page, "used");
  await page.close();
});

const shows = (css, text) => `document.querySelector("${css}").innerText.includes("${text}")`;

test("the example chat", async () => {
  const page = await open(await program("examples/chat"));
  await waitFor(page, shows("#state", "Log in"));
  await check(page, "logged out");
  await page.type("#name", "ann");
  await page.type("#password", "wrong\n");
  await waitFor(page, shows("#state", "password is wrong"));
  await check(page, "refused");
  await page.evaluate(`document.querySelector("#password").value = ""`);
  await page.type("#password", "fanfare\n");
  await waitFor(page, shows("#log", "ann joined"));
  await page.type("#text", "hello\n");
  await waitFor(page, shows("#log", "ann: hello"));
  await check(page, "used");
  await page.close();
});

test("the example dashboard", async () => {
  const url = await program("examples/dashboard");
  const page = await open(url);
  await check(page, "fresh");
  await fetch(`${url}/metrics-in`, { method: "POST", headers: { "Content-Type": "text/plain" }, body: "orders 12" });
  await waitFor(page, shows("#board", "12"));
  await check(page, "used");
  await page.close();
});

test("the example cursors", async () => {
  const url = await program("examples/cursors");
  const page = await open(url);
  await waitFor(page, shows("#state", "on the board start"));
  await check(page, "fresh");
  const other = await open(url);
  await waitFor(other, shows("#state", "on the board start"));
  // Again and again, because the page hides a mouse that rests.
  await other.evaluate(`setInterval(() => {
    const { left, top } = document.querySelector("#board").getBoundingClientRect();
    const place = { clientX: left + 40 + 20 * Math.random(), clientY: top + 40 };
    document.querySelector("#board").dispatchEvent(new PointerEvent("pointermove", place));
  }, 200)`);
  await waitFor(page, `document.querySelector(".cursor")`);
  await check(page, "used");
  await other.close();
  await page.close();
});

test("the example tokens", async () => {
  const page = await open(await program("examples/tokens"));
  await check(page, "fresh");
  await page.click("#ask");
  await waitFor(page, shows("#answer", "A gateway holds"));
  await waitFor(page, shows("#state", "whole answer"));
  await check(page, "used");
  await page.close();
});
