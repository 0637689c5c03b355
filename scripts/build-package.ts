/**
 * Builds what a stranger installs, in `dist/`: the library as plain JavaScript with its types, a file for each of `src/`, and
 * the command as one file. `npm pack` runs it.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");
const library = join(root, "dist/library");
const command = join(root, "dist/command");
/** A package that is installed in a moment. */
const COMMAND_MAX_BYTES = 2 * 1024 * 1024;

for (const folder of [library, command]) rmSync(folder, { recursive: true, force: true });
compile();
for (const file of filesOf(library)) if (file.endsWith(".d.ts")) importJavaScript(file);
await bundle();

function compile(): void {
  const tsc = join(root, "node_modules/.bin/tsc");
  const { status } = spawnSync(tsc, ["-p", "tsconfig.package.json"], { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

/** The compiler rewrites the imports of the JavaScript, and leaves those of its types. */
function importJavaScript(file: string): void {
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replaceAll(/((?:from|import\()\s*"\.{1,2}\/[^"]+)\.ts"/g, '$1.js"'));
}

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => join(folder, name));
}

async function bundle(): Promise<void> {
  const outfile = join(command, "sallyport.js");
  await build({
    entryPoints: [join(root, "src/cli/main.ts")],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: "eof",
    // What is CommonJS among the dependencies asks for Node's own modules by `require`.
    banner: {
      js: '#!/usr/bin/env node\nimport { createRequire as createBundleRequire } from "node:module";\nconst require = createBundleRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
  chmodSync(outfile, 0o755);
  const { size } = statSync(outfile);
  if (size > COMMAND_MAX_BYTES) throw new Error(`the command has ${size} bytes, at most ${COMMAND_MAX_BYTES}`);
}
