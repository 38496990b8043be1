// Makes fanfare.js, fanfare-members.js and fanfare-share.js from src/: bundled, without comments and white space, names shortened.
//   node build.js [FOLDER]    FOLDER: where to, for a comparison; otherwise here

import { writeFile } from "node:fs/promises";
import { build } from "esbuild";
import { minify } from "terser";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
for (const [source, name] of [["fanfare", "fanfare"], ["members", "fanfare-members"], ["share", "fanfare-share"]]) {
  const { outputFiles: [{ text }] } = await build({
    entryPoints: [`${here}/src/${source}.js`],
    write: false,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    mangleProps: /^_[a-z]/, // private names
    external: ["./fanfare.js", "./fanfare-members.js", "./fanfare-share.js"],
  });
  // Its names of variables compress better than esbuild's.
  const { code } = await minify(text, { module: true, ecma: 2020, compress: { passes: 2 } });
  await writeFile(`${process.argv[2] ?? here}/${name}.js`, `// Fanfare, Apache-2.0; source: clients/js/src\n${code}\n`);
}
