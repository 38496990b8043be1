// Where the soak happens: three nodes behind HAProxy, wires that can be cut, an audience in Node and in Chromium, and its load.

import { client } from "./clients.js";
import { WITH_TOKENS, haproxy, node, redis, token, tunnel, until } from "./cluster.js";
import { SoakPage, application } from "./soak-pages.js";

/** Each in another partition. */
export const LANES = ["soak-a", "soak-b", "soak-c"];
const READERS = 9;
const WRITERS = 3;
/** The longest pause of a writer between two publishes, in milliseconds. */
const PAUSE = 30;
const ENV = {
  ...WITH_TOKENS,
  FANFARE__HTTP__PUBLISH: "true",
  FANFARE__HTTP__ORIGINS: "*",
  FANFARE__BROKER__PUBLISH_TIMEOUT: "1s",
  FANFARE__TIMING__DRAIN: "2s",
  FANFARE__TIMING__DRAIN_WAIT: "500ms",
};

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** Short tokens, from an endpoint that is sometimes down, and that sometimes gives one that has expired. */
const endpoint = (chance, tally) => (user) => {
  const luck = chance.next();
  if (luck < 0.08) return void tally("token endpoint down");
  if (luck < 0.16) return tally("expired token"), token(user, -60);
  return token(user, 8);
};

export class Stage {
  constructor(t, { history, durable, chance, tally }) {
    Object.assign(this, { t, history, durable });
    this.issue = endpoint(chance, tally);
    // A broker that loses its log waits for the end of all publishes: then each must be given up soon.
    this.timeout = durable ? 120e3 : 2e3;
  }

  async set() {
    this.broker = await redis({ durable: this.durable });
    this.nodes = await Promise.all([1, 2, 3].map(() => node({ broker: this.broker.url, env: ENV })));
    this.door = await haproxy(this.nodes);
    const blocked = await haproxy(this.nodes, ["http-request deny if { req.hdr(upgrade) -i websocket }"]);
    const through = (doors) => Promise.all(doors.map(({ port }) => tunnel(port)));
    // Of the clients in Node, by turns; then one for each page.
    this.shared = await through([this.door, this.door, blocked]);
    const own = await through([this.door, blocked]);
    this.wires = [...this.shared, ...own];

    const app = await application(this.issue);
    this.readers = await Promise.all(Array.from({ length: READERS }, (_, number) => this.#reader(number)));
    this.pages = own.map((wire, number) => new SoakPage(this.history, LANES, { user: `page-${number}`, wire, timeout: this.timeout }));
    for (const page of this.pages) await page.start(app);
    return this;
  }

  get audience() {
    return [...this.readers, ...this.pages];
  }

  /** Publishes until `rest`. */
  async write() {
    this.writing = true;
    this.written = Promise.all(Array.from({ length: WRITERS }, async (_, writer) => {
      const fan = this.#client(`writer-${writer}`, writer);
      for (let number = 0; this.writing; number++) {
        await this.history.publish(fan.channel(LANES[number % LANES.length]), `writer-${writer}:${number}`, { timeout: this.timeout });
        await pause(Math.random() * PAUSE);
      }
    }));
    for (const page of this.pages) await page.write(4 * PAUSE);
  }

  async rest() {
    this.writing = false;
    await Promise.all([this.written, ...this.pages.map((page) => page.rest())]);
  }

  #client(user, number) {
    const give = () => {
      const text = this.issue(user);
      if (!text) throw new Error("the token endpoint is down");
      return text;
    };
    return client(this.t, this.shared[number % this.shared.length].url, { timeout: 120e3, token: give });
  }

  async #reader(number) {
    const user = `reader-${number}`;
    const fan = this.#client(user, number);
    const met = this.history.reader(user, LANES);
    let subscribed = 0;
    for (const lane of LANES) {
      const room = fan.channel(lane);
      room.on("subscribed", () => subscribed++);
      room.on("lost", () => met[lane].push(null));
      // Loops, too; but a loop may be behind the `lost` of its room.
      if (number % 4 || !this.durable) room.on("message", ({ data }) => met[lane].push(data));
      else (async () => {
        for await (const { data } of room) met[lane].push(data);
      })();
    }
    await until(() => subscribed >= LANES.length, `${user} is subscribed`);
    const has = (names) => LANES.every((lane) => met[lane].at(-1) === names[lane]);
    return { user, has, state: () => fan.state };
  }
}
