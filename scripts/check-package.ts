/**
 * The package as a stranger gets it: packed, installed from its tarball into an empty folder, and used there under each Node
 * that it promises, by the compiler in both of its resolutions, by esbuild, by Vite, and in a Worker.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build as buildByEsbuild } from "esbuild";
import { convertV4MiniflareOptions, Miniflare } from "miniflare";
import { build as buildByVite } from "vite";
import { createThrowawayProxy } from "./throwaway-proxy.ts";

const root = join(import.meta.dirname, "..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);
/** As the package `node` brings them; the newest is the project's own. */
const NODES = ["20", "22", "24"];
const VERSION_WITHIN_MS = 300;
const CONVERSATION_WITHIN_MS = 90_000;

const scratch = mkdtempSync(join(tmpdir(), "sallyport-package-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

type Files = { readonly filename: string; readonly files: readonly { readonly path: string }[] };

const run = (program: string, args: readonly string[], cwd: string, env: Record<string, string> = {}): string =>
  execFileSync(program, args, {
    cwd,
    env: { ...process.env, ...env },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });

function installed(): string {
  run(process.execPath, [join(root, "scripts/build-package.ts")], root);
  const packed = run("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", scratch], root);
  const [{ filename, files }] = JSON.parse(packed) as [Files];
  const strange = files.filter(
    ({ path }) => !/^(?:dist\/.*\.(?:js|d\.ts)|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/.test(path),
  );
  if (strange.length > 0) throw new Error(`in the tarball: ${strange.map(({ path }) => path).join(", ")}`);
  const consumer = join(scratch, "consumer");
  mkdirSync(consumer);
  cpSync(join(root, "test/package/consumer"), consumer, { recursive: true });
  writeFileSync(join(consumer, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
  run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", join(scratch, filename)], consumer);
  const got = Object.keys(
    (JSON.parse(readFileSync(join(consumer, "node_modules/.package-lock.json"), "utf8")) as { packages: object })
      .packages,
  );
  console.log(
    `package: ${files.length} files; installs ${got.map((path) => path.replace("node_modules/", "")).join(", ")}`,
  );
  return consumer;
}

function nodeOf(version: string): string {
  const folder = join(scratch, `node-${version}`);
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), "{}");
  run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", `node@${version}`], folder);
  return join(folder, "node_modules/.bin/node");
}

/** The fastest of a few: what the machine does beside it is not the command's. */
function startTimeMs(node: string, command: string): number {
  const times = Array.from({ length: 7 }, () => {
    const from = performance.now();
    run(node, [command, "--version"], scratch);
    return performance.now() - from;
  });
  return Math.min(...times);
}

/** Two agents that the installed command registers and pairs, and a program that makes them talk. */
async function converse(
  node: string,
  version: string,
  consumer: string,
  gate: { url: string; operatorToken: string },
): Promise<void> {
  const command = join(consumer, "node_modules/sallyport/dist/command/sallyport.js");
  const home = join(scratch, `home-${version}`);
  const env = { SALLYPORT_HOME: home, SALLYPORT_OPERATOR_TOKEN: gate.operatorToken };
  const sallyport = (...args: string[]): unknown => JSON.parse(run(node, [command, "--json", ...args], scratch, env));
  sallyport("init", "--url", gate.url, "--human-name", "Ann");
  for (const name of ["alice", "bob"]) sallyport("agent", "register", name);
  const { ticket } = sallyport("--agent", "alice", "pair", "start") as { ticket: string };
  sallyport("--agent", "bob", "pair", "confirm", ticket);
  mustSayWhatInboxNeeds(node, version, command, env);
  const child = spawn(node, [join(consumer, "conversation.mjs")], {
    cwd: consumer,
    env: { ...process.env, ...env },
    stdio: "inherit",
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), CONVERSATION_WITHIN_MS);
  const [code] = (await once(child, "exit")) as [number | null];
  clearTimeout(timer);
  if (code !== 0) throw new Error(`under Node ${version} the conversation fails, or does not end`);
  const tookMs = startTimeMs(node, command);
  console.log(`node ${version}: --version in ${Math.round(tookMs)} ms`);
  if (tookMs > VERSION_WITHIN_MS) throw new Error(`--version takes more than ${VERSION_WITHIN_MS} ms`);
}

/** Node 20 has no SQLite: the connector says so before it takes a message. */
function mustSayWhatInboxNeeds(node: string, version: string, command: string, env: Record<string, string>): void {
  if (version !== "20") return;
  const args = [command, "--agent", "bob", "connect", "--inbox"];
  const { status, stderr } = spawnSync(node, args, {
    env: { ...process.env, ...env },
    encoding: "utf8",
    timeout: 30_000,
  });
  if (status !== 3 || !stderr.includes("need Node 22.13 or newer"))
    throw new Error(`under Node 20 an inbox is not refused: ${status} ${stderr}`);
}

function compile(consumer: string): void {
  for (const [module, moduleResolution] of [
    ["nodenext", "nodenext"],
    ["esnext", "bundler"],
  ]) {
    const compilerOptions = {
      target: "ES2022",
      lib: ["ES2022", "DOM"],
      module,
      moduleResolution,
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
      types: [],
    };
    writeFileSync(join(consumer, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["types.ts"] }));
    run(bin("tsc"), ["-p", "."], consumer);
    console.log(`tsc: ${moduleResolution}`);
  }
}

async function bundle(consumer: string): Promise<void> {
  const entry = join(consumer, "worker.ts");
  const byEsbuild = await buildByEsbuild({
    entryPoints: [entry],
    bundle: true,
    format: "esm",
    platform: "browser",
    write: false,
    absWorkingDir: consumer,
  });
  const script = byEsbuild.outputFiles[0]?.text ?? "";
  const byVite = await buildByVite({
    root: consumer,
    logLevel: "error",
    configFile: false,
    build: { write: false, lib: { entry, formats: ["es"] } },
  });
  const outputs = Array.isArray(byVite) ? byVite : [byVite];
  const chunk = outputs
    .flatMap((output) => ("output" in output ? output.output : []))
    .find(({ type }) => type === "chunk");
  if (chunk === undefined || !("code" in chunk)) throw new Error("Vite gave no script");
  for (const [name, code] of [
    ["esbuild", script],
    ["Vite", chunk.code],
  ] as const) {
    const worker = new Miniflare(
      convertV4MiniflareOptions({ modules: true, script: code, compatibilityDate: "2026-01-01", cf: false }),
    );
    const answer = (await (await worker.dispatchFetch("http://worker/")).json()) as {
      ok: boolean;
      x: number;
      lines: number;
    };
    await worker.dispose();
    if (!answer.ok || answer.x !== 43 || answer.lines !== 6)
      throw new Error(`in a Worker by ${name}: ${JSON.stringify(answer)}`);
    console.log(`${name}: ${code.length} bytes, and runs in a Worker`);
  }
}

const consumer = installed();
compile(consumer);
await bundle(consumer);
const gate = await createThrowawayProxy();
await gate.start();
for (const version of NODES) await converse(nodeOf(version), version, consumer, gate);
await gate.kill();
console.log("package: ok");
