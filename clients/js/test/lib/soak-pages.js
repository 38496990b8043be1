// Pages in Chromium as readers and writers of the soak, reloaded and taken offline; and the application's web server.

import { file, open, site } from "./browser.js";
import { PATIENCE, until } from "./cluster.js";

/** The web server of the application: the page, and tokens from an endpoint that sometimes fails. */
export const application = async (token) =>
  site({
    "/soak.html": '<!doctype html><title>soak</title><script type="module" src="/page.js"></script>',
    "/page.js": await file("test/lib/soak-page.js"),
    "/fanfare.js": await file("fanfare.js"),
    "/token": (query) => token(query.get("user")),
  });

export class SoakPage {
  constructor(history, lanes, { user, wire, timeout }) {
    Object.assign(this, { history, user, wire });
    this.met = history.reader(user, lanes);
    this.hash = encodeURIComponent(JSON.stringify({ url: wire.url, user, lanes, timeout }));
    this.lanes = lanes;
  }

  async start(app) {
    this.page = await open(`${app}/soak.html#${this.hash}`, undefined, async (page) => {
      await page.exposeFunction("began", async (lane, name) => {
        await this.history.free();
        this.history.began(lane, name);
      });
      await page.exposeFunction("ended", (name, outcome) => {
        if (this.history.open.has(name)) this.history.endedWith(name, outcome);
      });
    });
    await until(() => this.page.evaluate(`window.subscribed >= ${this.lanes.length}`), `${this.user} is subscribed`);
  }

  write(pause) {
    this.pause = pause;
    return this.page.evaluate((pause) => void write(pause), pause);
  }

  /** Takes over what the page got so far. */
  async take() {
    for (const [lane, name] of await this.page.evaluate("met.splice(0)")) this.met[lane].push(name);
  }

  async reload() {
    await this.take();
    await this.page.reload({ waitUntil: "domcontentloaded", timeout: PATIENCE });
    for (const name of [...this.history.open]) if (name.startsWith(`${this.user}:`)) this.history.left(name);
    await this.write(this.pause);
  }

  /** As a phone in a tunnel: DevTools say offline, and no connection gets through, also none that is open. */
  async offline(meanwhile) {
    await this.page.setOfflineMode(true);
    this.wire.off(true);
    await meanwhile();
    this.wire.off(false);
    await this.page.setOfflineMode(false);
  }

  /** Stops writing, once the last publish has its answer. */
  async rest() {
    await this.page.evaluate("window.on = false");
    await until(() => this.page.evaluate("!window.writing"), `the last publish of ${this.user} ends`);
  }

  state() {
    return this.page.evaluate("fan.state");
  }

  async has(names) {
    await this.take();
    return Object.entries(names).every(([lane, name]) => this.met[lane].at(-1) === name);
  }
}
