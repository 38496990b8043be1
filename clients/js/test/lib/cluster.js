// Real nodes, Redis and HAProxy as child processes, each on a port of its own, ended when the test file ends.

import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

export const ROOT = new URL("../../../..", import.meta.url).pathname;
/** How long a test waits for anything, in milliseconds. */
export const PATIENCE = 60e3;
export const SECRET = "a-secret-of-this-test-0123456789-0123456789";
/** A node that checks tokens. */
export const WITH_TOKENS = { FANFARE__AUTH__KEYS: `[{ secret = "${SECRET}" }]` };

const folder = mkdtempSync(join(tmpdir(), "fanfare-js-"));
const programs = new Set();
const tunnels = new Set();
after(async () => {
  for (const tunnel of tunnels) tunnel.stop();
  await Promise.all([...programs].map((program) => program.kill()));
  rmSync(folder, { recursive: true, force: true });
});

/** A value as soon as `look` gives one that is true. */
export const until = async (look, what = look.toString()) => {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const value = await look();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${PATIENCE} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

export const freePort = async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
};

class Program {
  output = "";

  /** What it writes is its output, or goes to a file. */
  constructor(command, args, env = {}, file) {
    const to = file ? openSync(file, "a") : "pipe";
    this.child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", to, to] });
    if (file) closeSync(to);
    else for (const stream of [this.child.stdout, this.child.stderr]) stream.on("data", (text) => (this.output += text));
    this.ended = once(this.child, "exit").then(() => programs.delete(this));
    programs.add(this);
  }

  signal(name) {
    this.child.kill(name);
  }

  async kill(name = "SIGKILL") {
    this.child.kill("SIGCONT");
    this.child.kill(name);
    let over = false;
    this.ended.then(() => (over = true));
    await until(() => over, `${this.child.spawnfile} ends after ${name}\n${this.output.slice(-2000)}`);
  }
}

const answers = async (url) => {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
};

/** A Redis; one that is durable has its log again after a restart, another one begins with an empty log. `meanwhile` is while it is down. */
export const redis = async ({ durable = false } = {}) => {
  const port = await freePort();
  const home = mkdtempSync(join(folder, "redis-"));
  const files = durable ? ["--appendonly", "yes", "--appendfsync", "always"] : ["--appendonly", "no"];
  const start = async () => {
    const program = new Program("redis-server", ["--port", port, "--bind", "127.0.0.1", "--save", "", ...files, "--dir", home]);
    await until(() => program.output.includes("Ready to accept"), "redis starts");
    return program;
  };
  const server = { url: `redis://127.0.0.1:${port}`, port, program: await start() };
  server.restart = async ({ signal, meanwhile } = {}) => {
    await server.program.kill(signal);
    await meanwhile?.();
    server.program = await start();
  };
  server.command = async (...words) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.write(`${words.join(" ")}\r\n`);
    const [answer] = await once(socket, "data");
    socket.destroy();
    return answer.toString();
  };
  return server;
};

/** A node; `broker` is a URL or nothing for one in memory. */
export const node = async ({ broker, env = {}, name = `n${Math.random().toString(36).slice(2)}` } = {}) => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const args = ["--listen", `127.0.0.1:${port}`, "--name", name, ...(broker ? ["--broker", broker] : [])];
  const start = async () => {
    const program = new Program(join(ROOT, "target/checked/fanfare"), args, env);
    await until(async () => program.child.exitCode !== null || (await answers(`${url}/ready`)), `${name} is ready`);
    if (program.child.exitCode !== null) throw new Error(program.output);
    return program;
  };
  const started = { url, port, name, program: await start() };
  started.kill = (signal) => started.program.kill(signal);
  started.start = async () => {
    started.program = await start();
  };
  return started;
};

/**
 * HAProxy before these nodes; `rules` are lines of its frontend. `cut` ends it, with all connections, and starts it again. With `logged`,
 * `log` gives its log: from a file, because HAProxy drops lines that a busy reader does not take.
 */
export const haproxy = async (nodes, rules = [], { maxconn = 2000, logged = false } = {}) => {
  const port = await freePort();
  const log = logged ? join(folder, `haproxy-${port}.log`) : undefined;
  const config = join(folder, `haproxy-${port}.cfg`);
  const lines = [
    "global", `  maxconn ${maxconn}`,
    "defaults", "  mode http", "  timeout connect 2s", "  timeout client 1h", "  timeout server 1h", "  timeout http-request 5s",
    "  timeout queue 5s", "  option redispatch", "  retries 3",
    "frontend in", `  bind 127.0.0.1:${port}`, ...rules.map((rule) => `  ${rule}`), "  default_backend nodes",
    "backend nodes", "  balance leastconn", "  option httpchk GET /ready",
    "  default-server check inter 200ms fall 1 rise 1",
    ...nodes.map(({ name, port: to }) => `  server ${name} 127.0.0.1:${to}`),
  ];
  writeFileSync(config, `${lines.join("\n")}\n`);
  const url = `http://127.0.0.1:${port}`;
  const start = async () => {
    const program = new Program("haproxy", ["-f", config, "-db"], { PATH: `${process.env.PATH}:/usr/sbin` }, log);
    await until(() => program.child.exitCode !== null || answers(`${url}/live`), "HAProxy is ready");
    if (program.child.exitCode !== null) throw new Error(program.output);
    return program;
  };
  const door = { url, port, program: await start(), log: () => readFileSync(log, "utf8") };
  door.cut = async () => {
    await door.program.kill();
    door.program = await start();
  };
  return door;
};

/** A wire to a port that can be cut, or held so that nothing passes though both ends stay open. */
export const tunnel = async (port) => {
  const pairs = new Set();
  let off = false;
  const server = net.createServer((client) => {
    if (off) return client.destroy();
    const up = net.connect(port, "127.0.0.1");
    const pair = [client, up];
    pairs.add(pair);
    for (const [from, to] of [[client, up], [up, client]]) {
      from.on("data", (bytes) => pair.held || to.write(bytes));
      from.on("error", () => {});
      from.on("close", () => pair.held || (to.destroy(), pairs.delete(pair)));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const wire = {
    url: `http://127.0.0.1:${server.address().port}`,
    connections: () => pairs.size,
    cut: () => pairs.forEach((pair) => pair.forEach((socket) => socket.resetAndDestroy())),
    /** The open connections go silent; new ones work. */
    silence: () => pairs.forEach((pair) => (pair.held = true)),
    /** Whether no connection gets through; the open ones are cut. */
    off: (is) => (off = is) && wire.cut(),
    stop: () => (server.close(), wire.cut()),
  };
  tunnels.add(wire);
  return wire;
};

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token of this user that lives for so many seconds. */
export const token = (sub, seconds, fanfare = { channels: [{ match: "*", can: ["subscribe", "publish", "history"] }] }) => {
  const now = Math.floor(Date.now() / 1000);
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, iat: now, exp: now + seconds, fanfare, jti: Math.random().toString(36) })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
};
