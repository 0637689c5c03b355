/** That `npm run lint` refuses what docs/architecture.md says it refuses: planted imports, judged by the real linter. */
import { execFile } from "node:child_process";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { temporaryFolder } from "../cli/program.ts";

const root = join(import.meta.dirname, "../..");

/** What stands in src/, lowest first: each imports only what stands before it. */
const LAYERS = (
  "wire telemetry resilience config.ts database authority registry audit call identity trust authz " +
  "auth apikeys tasks devices operators rpc runtime.ts gate housekeeping a2a http app.ts worker.ts"
).split(" ");

/** What runs outside the Worker, and all that it may import. */
const OUTSIDE: Record<string, readonly string[]> = {
  client: ["wire", "resilience"],
  connect: ["wire", "resilience", "client"],
  mcp: ["wire", "resilience", "client"],
  cli: ["wire", "resilience", "config.ts", "client", "connect", "mcp"],
  node: ["wire", "resilience", "client", "cli"],
  console: ["wire", "resilience", "client"],
};

/** The folders of the gate, and what of the gate each may import. */
const GATE: Record<string, readonly string[]> = {
  protocol: [],
  storage: ["protocol"],
  queue: ["protocol", "storage"],
  admission: ["protocol", "storage"],
  outbox: ["protocol", "storage", "admission"],
  relay: ["protocol", "storage", "admission", "queue", "outbox"],
  calls: ["protocol", "storage", "admission", "queue", "outbox", "relay"],
};

/** A module of a place: a folder's own file, or the file that the place is. */
const moduleOf = (place: string): string => (place.endsWith(".ts") ? place : `${place}/planted.ts`);

/** @returns what the linter reports, as `rule: importing file -> imported path` */
async function lint(files: Record<string, readonly string[]>): Promise<string[]> {
  const folder = await temporaryFolder();
  await copyFile(join(root, ".oxlintrc.json"), join(folder, ".oxlintrc.json"));
  for (const [file, imports] of Object.entries(files)) {
    const path = join(folder, "src", file);
    await mkdir(dirname(path), { recursive: true });
    const lines = imports.map(
      (from, at) => `import type { T as T${at} } from "${from}";\nexport type U${at} = T${at};\n`,
    );
    await writeFile(path, `export type T = string;\n${lines.join("")}`);
  }
  const linter = join(root, "node_modules/.bin/oxlint");
  const { stdout } = await promisify(execFile)(process.execPath, [linter, "-f", "json"], {
    cwd: folder,
    maxBuffer: 64 * 1_048_576,
  }).catch((error: unknown) => error as { stdout: string });
  const { diagnostics } = JSON.parse(stdout) as { diagnostics: { code: string; filename: string; message: string }[] };
  return diagnostics.map(({ code, filename, message }) => {
    const imported = /^'([^']+)'/.exec(message)?.[1] ?? "";
    return `${code}: ${filename.replace(/^src\//, "")} -> ${imported}`;
  });
}

const up = (file: string): string => (file.includes("/") ? "../" : "./");

test("lint: a folder imports only what stands before it, and what runs outside the Worker never the Worker", async () => {
  const places = [...LAYERS, ...Object.keys(OUTSIDE)];
  const mayImport = (from: string, to: string): boolean =>
    OUTSIDE[from]?.includes(to) ?? (OUTSIDE[to] === undefined && LAYERS.indexOf(to) < LAYERS.indexOf(from));
  const planted: Record<string, string[]> = {};
  const expected: string[] = [];
  for (const from of places) {
    const file = moduleOf(from);
    const others = places.filter((to) => to !== from);
    planted[file] = others.map((to) => up(file) + moduleOf(to));
    for (const to of others)
      if (!mayImport(from, to)) expected.push(`eslint(no-restricted-imports): ${file} -> ${up(file)}${moduleOf(to)}`);
  }
  const reported = (await lint(planted)).filter((line) => line.includes("no-restricted-imports"));
  expect(expected.length).toBeGreaterThan(200);
  expect(reported.toSorted()).toEqual(expected.toSorted());
});

test("lint: what runs outside the Worker does not import it from a sub-folder either, however deep", async () => {
  const planted = { "database/planted.ts": [] as string[] };
  const folders = ["client/methods", "connect/store", "cli/session", "cli/commands/agents"];
  const files = folders.map((folder) => ({
    file: `${folder}/planted.ts`,
    from: `${"../".repeat(folder.split("/").length)}database/planted.ts`,
  }));
  const reported = await lint({ ...planted, ...Object.fromEntries(files.map(({ file, from }) => [file, [from]])) });
  const refused = reported.filter((line) => line.includes("no-restricted-imports"));
  const expected = files.map(({ file, from }) => `eslint(no-restricted-imports): ${file} -> ${from}`);
  expect(refused.toSorted()).toEqual(expected.toSorted());
});

test("lint: a folder of the gate imports only what stands before it, and never the state of the whole gate", async () => {
  const folders = Object.keys(GATE);
  const whole = ["../gate.ts", "../state.ts", "../stores.ts", "../maintenance.ts"];
  const planted: Record<string, string[]> = {
    "gate/gate.ts": [],
    "gate/state.ts": [],
    "gate/stores.ts": [],
    "gate/maintenance.ts": [],
  };
  const expected: string[] = [];
  for (const from of folders) {
    const file = `gate/${from}/planted.ts`;
    const others = folders.filter((to) => to !== from).map((to) => `../${to}/planted.ts`);
    planted[file] = [...others, ...whole, "../../http/planted.ts", "../../wire/planted.ts"];
    const allowed = (GATE[from] ?? []).map((to) => `../${to}/planted.ts`);
    for (const to of [...others.filter((other) => !allowed.includes(other)), ...whole, "../../http/planted.ts"])
      expected.push(`eslint(no-restricted-imports): ${file} -> ${to}`);
  }
  const reported = (await lint(planted)).filter((line) => line.includes("no-restricted-imports"));
  expect(reported.toSorted()).toEqual(expected.toSorted());
});

test("lint: files that import each other in a circle are refused, types included", async () => {
  const reported = await lint({ "wire/a.ts": ["./b.ts"], "wire/b.ts": ["./c.ts"], "wire/c.ts": ["./a.ts"] });
  const circles = reported.filter((line) => line.startsWith("import(no-cycle)")).map((line) => line.split(" ")[1]);
  expect(circles.toSorted()).toEqual(["wire/a.ts", "wire/b.ts", "wire/c.ts"]);
});
