// The package: its size, its types, and what npm would publish.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

const run = promisify(execFile);
const here = new URL("..", import.meta.url).pathname;
const text = (name) => readFile(join(here, name), "utf8");

test("the module has at most 6 KiB with gzip, and no dependencies", async () => {
  const module = await text("fanfare.js");
  assert.ok(gzipSync(module, { level: 9 }).length <= 6144, `${gzipSync(module, { level: 9 }).length} bytes`);
  assert.doesNotMatch(module, /(^|;)import[ {*"]/m);
  const { dependencies, sideEffects } = JSON.parse(await text("package.json"));
  assert.deepEqual([dependencies, sideEffects], [undefined, false]);
});

test("the built files are those of the source", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "fanfare-build-"));
  t.after(() => rm(folder, { recursive: true }));
  await run(process.execPath, ["build.js", folder], { cwd: here });
  for (const name of ["fanfare.js", "fanfare-members.js", "fanfare-share.js"]) {
    assert.ok((await readFile(join(folder, name), "utf8")) === (await text(name)), `${name}: run npm run build`);
  }
});

test("the types are right for a strict compiler, and wrong uses are errors", async () => {
  await run(join(here, "node_modules/.bin/tsc"), ["--project", join(here, "test/types")]).catch(({ stdout }) => assert.fail(stdout));
});

test("npm packs what an application needs, and it works from there", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "fanfare-pack-"));
  t.after(() => rm(folder, { recursive: true }));
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: here });
  const [{ filename, files }] = Object.values(JSON.parse(stdout));
  const names = ["README.md", "fanfare-members.js", "fanfare-share.js", "fanfare.d.ts", "fanfare.js", "node-socket.js", "node.js", "package.json", "react.d.ts", "react.js"];
  assert.deepEqual(files.map(({ path }) => path).sort(), names.sort());
  await writeFile(join(folder, "package.json"), '{"type":"module"}');
  await run("npm", ["install", "--offline", "--no-audit", "--legacy-peer-deps", join(folder, filename)], { cwd: folder });
  await writeFile(join(folder, "use.js"), `import { connect, FanfareError } from "@fanfare/client";
    const fan = connect("http://127.0.0.1:1");
    console.log(fan.state, typeof FanfareError);
    fan.close();`);
  const used = await run(process.execPath, ["use.js"], { cwd: folder });
  assert.equal(used.stdout.trim(), "connecting function");
});
