// Makes fanfare.js and fanfare-share.js from src/: bundled, without comments and white space, private names (`_…`) shortened.
//   node build.js [FOLDER]    FOLDER: where to, for a comparison; otherwise here

import { build } from "esbuild";

const here = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
for (const [source, name] of [["fanfare", "fanfare"], ["share", "fanfare-share"]]) {
  await build({
    entryPoints: [`${here}/src/${source}.js`],
    outfile: `${process.argv[2] ?? here}/${name}.js`,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    mangleProps: /^_[a-z]/,
    external: ["./fanfare-share.js"],
    banner: { js: "// Fanfare, Apache-2.0; source: clients/js/src" },
  });
}
