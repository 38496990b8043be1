// In Chromium: the module as a node serves it, without a bundler.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { build } from "esbuild";
import { file, open, site } from "./lib/browser.js";
import { client, opened } from "./lib/clients.js";
import { PATIENCE, haproxy, node, redis, tunnel, until } from "./lib/cluster.js";

const WITH_PUBLISH = { FANFARE__HTTP__PUBLISH: "true" };

let broker, nodes, url;
before(async () => {
  broker = await redis();
  nodes = await Promise.all([1, 2].map(() => node({ broker: broker.url, env: WITH_PUBLISH })));
  url = nodes[0].url;
});

/** Makes a client in the page, with a record of what one channel gives. */
const listen = (page, name, options = {}, channelOptions = {}) =>
  page.evaluate(async (name, options, channelOptions) => {
    const { connect } = await import("/fanfare.js");
    window.fan = connect("/", options);
    window.states = [];
    window.seen = [];
    fan.on("state", (event) => states.push({ ...event, at: performance.now() }));
    window.room = fan.channel(name, channelOptions);
    room.on("lost", () => seen.push("lost"));
    room.on("message", ({ data }) => seen.push(data));
    await new Promise((resolve) => room.on("subscribed", resolve));
  }, name, options, channelOptions);

const seen = (page) => page.evaluate("seen");
const has = (page, number) => page.waitForFunction((number) => seen.length >= number, { timeout: PATIENCE, polling: 20 }, number);

test("a page imports the client from a node and talks to a program", async () => {
  const page = await open(`${url}/live`);
  await listen(page, "page");
  await page.evaluate(async () => {
    for (let i = 0; i < 3; i++) await room.publish({ i });
  });
  await has(page, 3);
  assert.deepEqual([await seen(page), page.errors], [[{ i: 0 }, { i: 1 }, { i: 2 }], []]);
  await page.close();
});

test("it works in a worker", async () => {
  const page = await open(`${url}/live`);
  const got = await page.evaluate(async (url) => {
    const code = `import { connect } from "${url}/fanfare.js";
      const room = connect("${url}").channel("worker");
      room.on("subscribed", () => room.publish("from a worker"));
      for await (const { data } of room) postMessage(data);`;
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
  }, url);
  assert.equal(got, "from a worker");
  await page.close();
});

test("a page behind a proxy that blocks WebSockets has the same events within 3 s", async (t) => {
  const blocked = await haproxy(nodes, ["http-request deny if { req.hdr(upgrade) -i websocket }"]);
  const page = await open(`${blocked.url}/live`);
  const began = await page.evaluate("performance.now()");
  await listen(page, "blocked");
  const first = await page.evaluate(`states.find(({ state }) => state === "open")`);
  assert.equal(first.transport, "stream");
  assert.ok(first.at - began < 3000, `${first.at - began} ms`);
  await page.evaluate(() => room.publish("over POST"));
  await client(t, url).channel("blocked").publish("over a socket");
  await has(page, 2);
  assert.deepEqual(await seen(page), ["over POST", "over a socket"]);
  await page.close();
});

test("with keep, a page that is reloaded goes on where it was", async (t) => {
  const writer = client(t, url).channel("reload");
  const page = await open(`${url}/live`);
  await listen(page, "reload", { keep: true });
  const all = [];
  let sent = 0;
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 20; i++) await writer.publish(sent++);
    // The last thing before the page goes, as a page that stores what it shows would do.
    const before = await page.evaluate(() => {
      addEventListener("pagehide", () => localStorage.setItem("seen", JSON.stringify(seen)));
      return seen.length;
    });
    assert.ok(before <= sent);
    const reloaded = page.reload();
    for (let i = 0; i < 20; i++) await writer.publish(sent++);
    await reloaded;
    all.push(...(await page.evaluate(() => JSON.parse(localStorage.getItem("seen")))));
    await listen(page, "reload", { keep: true });
  }
  await until(async () => all.length + (await seen(page)).length >= sent);
  all.push(...(await seen(page)));
  assert.deepEqual(all, [...Array(sent).keys()]);
  await page.close();
});

test("online ends a wait at once", async () => {
  const wire = await tunnel(nodes[0].port);
  const page = await open(`${wire.url}/live`);
  await listen(page, "online");
  await nodes[0].kill();
  // Long enough for the wait to be long.
  await page.waitForFunction(() => states.at(-1).retryIn > 4000, { timeout: PATIENCE, polling: 20 });
  await nodes[0].start();
  const took = await page.evaluate(async () => {
    const began = performance.now();
    dispatchEvent(new Event("online"));
    await new Promise((resolve) => fan.on("state", ({ state }) => state === "open" && resolve()));
    return performance.now() - began;
  });
  assert.ok(took < 2500, `${took} ms`);
  await page.close();
});

const connections = async (to) => {
  const text = await (await fetch(`${to.url}/metrics`)).text();
  return Number(/^fanfare_connections(?:\{[^}]*\})? (\d+)/m.exec(text)?.[1]);
};

test("ten tabs share one socket, and when the leading tab is closed another goes on: nothing missing, nothing twice", { timeout: 180e3 }, async (t) => {
  const own = await node({ broker: broker.url });
  const writer = client(t, url).channel("tabs");
  await opened(client(t, url));
  const tabs = [];
  for (let i = 0; i < 10; i++) {
    const tab = await open(`${own.url}/live`);
    await listen(tab, "tabs", { share: true });
    tabs.push(tab);
  }
  assert.equal(await connections(own), 1);
  let sent = 0;
  const first = sent;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 20; i++) await writer.publish(sent++);
    const more = Promise.all(Array.from({ length: 50 }, () => writer.publish(sent++)));
    const own = Promise.all(tabs.slice(1).map((tab, i) => tab.evaluate((text) => room.publish(text), `round ${round} tab ${i}`)));
    await tabs.shift().close(); // the oldest leads
    await Promise.all([more, own]);
  }
  await writer.publish("end");
  for (const tab of tabs) await tab.waitForFunction(() => seen.includes("end"), { timeout: PATIENCE, polling: 20 });
  const views = await Promise.all(tabs.map(seen));
  for (const view of views) {
    assert.deepEqual(view, views[0], "all tabs have the same");
    assert.deepEqual(view.filter((data) => typeof data === "number"), Array.from({ length: sent - first }, (_, i) => first + i));
    const texts = view.filter((data) => typeof data === "string");
    assert.equal(texts.length, 9 + 8 + 7 + 1, "each tab's own publish, once");
    assert.equal(new Set(texts).size, texts.length);
  }
  assert.equal(await connections(own), 1);
  // A tab that comes later, from the start: the others get nothing twice.
  const late = await open(`${own.url}/live`);
  await listen(late, "tabs", { share: true }, { last: 10 });
  await has(late, 10);
  await writer.publish("after");
  for (const tab of [...tabs, late]) await tab.waitForFunction(() => seen.at(-1) === "after", { timeout: PATIENCE, polling: 20 });
  assert.equal((await seen(late)).length, 11);
  assert.equal((await seen(tabs[0])).length, views[0].length + 1);
  await Promise.all([...tabs, late].map((tab) => tab.close()));
  await until(async () => (await connections(own)) === 0);
});

test("shared tabs see the node go and come, and miss nothing", { timeout: 180e3 }, async (t) => {
  const own = await node({ broker: broker.url });
  const writer = client(t, url).channel("tabs-restart");
  const tabs = await Promise.all([1, 2, 3].map(() => open(`${own.url}/live`)));
  for (const tab of tabs) await listen(tab, "tabs-restart", { share: "a group" });
  let sent = 0;
  for (let i = 0; i < 20; i++) await writer.publish(sent++);
  await own.kill();
  for (let i = 0; i < 20; i++) await writer.publish(sent++);
  await own.start();
  for (const tab of tabs) {
    await has(tab, 40);
    assert.deepEqual(await seen(tab), [...Array(sent).keys()]);
    assert.ok((await tab.evaluate("states.map(({ state }) => state)")).includes("waiting"));
    await tab.close();
  }
});

test("the React hooks show messages, losses and the state", async (t) => {
  const { outputFiles } = await build({
    entryPoints: [new URL("lib/react-app.jsx", import.meta.url).pathname],
    bundle: true,
    write: false,
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"development"' },
  });
  const html = '<!doctype html><div id="root"></div><script src="/app.js"></script>';
  const page = await open(`${await site({ "/index.html": html, "/app.js": outputFiles[0].text })}/index.html?${url}`);
  const text = (wanted) => page.waitForFunction((wanted) => document.body.innerText.includes(wanted), { timeout: PATIENCE, polling: 20 }, wanted);
  await text("state: open");
  await page.click("button");
  await text("1 message: from react");
  await client(t, url).channel("react").publish("from outside");
  await text("2 messages: from react, from outside");
  await text("lost: 0");
  assert.deepEqual(page.errors, []);
  await page.close();
});

test("the example is a chat for two", async () => {
  const folder = await site({ "/chat.html": await file("examples/chat.html") });
  const address = `${folder}/chat.html?node=${encodeURIComponent(url)}&room=chat:${Math.random()}`;
  const [ann, bob] = [await open(address), await open(address)];
  for (const [page, words] of [[ann, "hello"], [bob, "good morning"]]) {
    await page.bringToFront();
    await page.waitForFunction(() => document.getElementById("state").textContent === "open", { timeout: PATIENCE });
    await page.bringToFront(); // a hidden tab takes no clicks
    await page.type("#text", words);
    await page.click("button");
  }
  for (const page of [ann, bob]) {
    await page.bringToFront();
    await page.waitForFunction(() => document.querySelectorAll("li").length === 2, { timeout: PATIENCE, polling: 20 });
    const lines = await page.$$eval("li", (found) => found.map(({ textContent }) => textContent));
    assert.deepEqual(lines.sort(), ["good morning", "hello"]);
    assert.deepEqual(page.errors, []);
    await page.close();
  }
});
