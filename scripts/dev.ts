/**
 * `npm run dev`: serves the proxy on this machine. Makes its secrets where there are none, applies the migrations, starts
 * wrangler, and prints one line when it answers, and what to do next. Arguments after `--` go to wrangler, except `--json-logs`: the
 * Worker's log as it is, which is also what a pipe gets.
 *
 * `PORT` (8787) is where it listens, `STATE_DIR` (`.wrangler/state`) is where it keeps everything it writes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  unwatchFile,
  watchFile,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join, relative, resolve } from "node:path";
import { createInterface } from "node:readline";
import { shownLine } from "./dev-log.ts";
import { claimState, type StateClaim } from "./state-claim.ts";

const root = join(import.meta.dirname, "..");
/** Started directly: its launcher passes no signal on, and would leave a serving process behind. */
const wranglerProgram = join(root, "node_modules/wrangler/wrangler-dist/cli.js");
const READY_WITHIN_MS = 60_000;
const FREE_WITHIN_MS = 5_000;
const SECRETS_LOOKED_AT_EVERY_MS = 500;
const SECRETS = ["OPERATOR_TOKEN", "REGISTRY_SIGNING_SECRET"];
/** What wrangler reads; linked, so that a proxy with a state folder of its own writes nothing into the checkout. */
const READ_BY_WRANGLER = ["wrangler.toml", "src", "migrations", "package.json"];

const port = process.env["PORT"] ?? "8787";
const url = `http://127.0.0.1:${port}`;
const ownStateDir = process.env["STATE_DIR"];
const stateDir = resolve(root, ownStateDir ?? ".wrangler/state");
const JSON_LOGS = "--json-logs";
const wranglerArguments = process.argv.slice(2).filter((argument) => argument !== JSON_LOGS);
const logForm = process.argv.includes(JSON_LOGS) || !process.stdout.isTTY ? "json" : "readable";

let running: ChildProcess | null = null;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop(signal));
// A starter with a channel that is gone cannot stop it any more.
process.on("disconnect", () => stop("SIGTERM"));

const claim = await claimed();
if (!(await isFreeSoon(Number(port)))) {
  console.error(`port ${port} is taken; choose another with PORT=...`);
  process.exit(1);
}
if (!SECRETS.every(isGiven)) makeSecrets();
const projectDir = ownStateDir === undefined ? root : linkProject(join(stateDir, "project"));

/** No usage figures, no look-up of the machine's whereabouts, no look for updates: nothing here needs the network. */
const environment = {
  ...process.env,
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  WRANGLER_SEND_METRICS: "false",
  WRANGLER_HIDE_BANNER: "true",
  WRANGLER_LOG_PATH: ownStateDir === undefined ? join(root, ".wrangler/logs") : join(stateDir, "logs"),
  CI: "true",
};

await migrate();
await serve();

/** This state, for this process alone: two that serve it would write over each other. */
async function claimed(): Promise<StateClaim> {
  const answer = await claimState(stateDir, url);
  if (answer.ok) return answer.value;
  console.error(`${stateDir} is served already: ${answer.error}`);
  console.error("end that first, or choose another folder with STATE_DIR=... (and another port with PORT=...)");
  process.exit(1);
}

/** Whether a setting is among the arguments for wrangler, as `--var NAME:value`. */
function isGiven(name: string): boolean {
  return wranglerArguments.some(
    (argument, index) => argument.startsWith(`${name}:`) && wranglerArguments[index - 1] === "--var",
  );
}

/** `.dev.vars` with a random operator token and signing secret, readable by its owner alone. */
function makeSecrets(): void {
  const path = join(root, ".dev.vars");
  if (existsSync(path)) return;
  const lines = SECRETS.map((name) => `${name}="${randomBytes(32).toString("base64url")}"\n`);
  try {
    writeFileSync(
      path,
      `# Secrets of this machine's own proxy, made on its first start. Never commit them.\n${lines.join("")}`,
      { mode: 0o600, flag: "wx" },
    );
    console.error("made .dev.vars with a random operator token and signing secret");
  } catch (error) {
    // Two starts at once: the first one's secrets count.
    if (!isCode(error, "EEXIST")) throw error;
  }
}

/** wrangler keeps its scratch files beside the wrangler.toml that it is given, and reads `.dev.vars` there. */
function linkProject(folder: string): string {
  mkdirSync(folder, { recursive: true });
  for (const name of SECRETS.every(isGiven) ? READ_BY_WRANGLER : [...READ_BY_WRANGLER, ".dev.vars"]) {
    try {
      symlinkSync(join(root, name), join(folder, name));
    } catch (error) {
      // From an earlier start on this state.
      if (!isCode(error, "EEXIST")) throw error;
    }
  }
  return folder;
}

/** Brings the local database up to the newest migration; what an earlier start has applied is not looked at again. */
async function migrate(): Promise<void> {
  const wanted = readdirSync(join(root, "migrations")).toSorted().join("\n");
  const stamp = join(stateDir, "migrations-applied");
  if (existsSync(join(stateDir, "v3/d1")) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  const child = wrangler(["d1", "migrations", "apply", "DB", "--local", "--persist-to", stateDir], "pipe");
  let output = "";
  child.stdout?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  if ((await ended(child)) === 0) {
    writeFileSync(stamp, wanted);
    return;
  }
  console.error(output);
  console.error("the migrations could not be applied");
  process.exit(1);
}

async function serve(): Promise<never> {
  const args = [
    "dev",
    "--ip",
    "127.0.0.1",
    "--port",
    port,
    "--persist-to",
    stateDir,
    "--show-interactive-dev-session=false",
    "--var",
    "DEVELOPMENT:on",
  ];
  const child = wrangler([...args, ...wranglerArguments], "pipe");
  claim.servedBy(child.pid ?? null);
  let isReady = false;
  /** What it says of its bindings on the way; wanted only where it does not come up. */
  const before: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null)
      createInterface({ input: stream }).on("line", (line) => (isReady ? show(line) : before.push(line)));
  }
  void announce(child).then(() => (isReady = true));
  const secretsFile = join(root, ".dev.vars");
  let isRestarting = false;
  // wrangler looks at the file in its own folder, if at all, and not where it is linked.
  watchFile(secretsFile, { interval: SECRETS_LOOKED_AT_EVERY_MS, persistent: false }, ({ mtimeMs }) => {
    if (mtimeMs === 0 || isRestarting) return;
    isRestarting = true;
    console.error(".dev.vars has changed: starting again with what it says now");
    child.kill("SIGTERM");
  });
  const status = (await ended(child)) ?? 1;
  unwatchFile(secretsFile);
  if (isRestarting && (await isFreeSoon(Number(port)))) return serve();
  if (!isReady) for (const line of before) console.error(line);
  return process.exit(status);
}

function show(line: string): void {
  const shown = shownLine(line, logForm, Date.now());
  if (shown?.stream === "out") console.log(shown.text);
  else if (shown?.stream === "err") console.error(shown.text);
}

function wrangler(args: string[], output: "pipe" | "inherit"): ChildProcess {
  running = spawn(process.execPath, ["--no-warnings", wranglerProgram, ...args], {
    cwd: projectDir,
    env: environment,
    stdio: ["ignore", output, output],
  });
  return running;
}

/** Resolves with the exit status; null when it was ended by a signal. */
function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((resolveEnded, reject) => {
    child.on("error", reject);
    child.on("exit", resolveEnded);
  });
}

/** wrangler takes its own processes with it; nothing is left serving. */
function stop(signal: NodeJS.Signals): void {
  if (running === null) process.exit(0);
  running.on("exit", () => process.exit(0));
  running.kill(signal);
}

/** One line, once requests are answered: scripts wait for it. */
async function announce(child: ChildProcess): Promise<void> {
  const deadline = Date.now() + READY_WITHIN_MS;
  while (child.exitCode === null && Date.now() < deadline) {
    const answered = await fetch(`${url}/health`).then(
      (response) => response.body?.cancel().then(() => true),
      () => false,
    );
    if (answered === true) {
      console.log(`sallyport ready on ${url}`);
      if (logForm === "readable") console.log(whatNext());
      return;
    }
    await new Promise((resolveLater) => setTimeout(resolveLater, 100));
  }
  if (child.exitCode === null) console.error(`no answer on ${url} within ${READY_WITHIN_MS / 1_000} s`);
}

/** For a person who has just started it: where things are, and three commands. */
function whatNext(): string {
  const given = SECRETS.every(isGiven);
  const shownState = stateDir.startsWith(root) ? relative(root, stateDir) : stateDir;
  return [
    "",
    `  operator token   ${given ? "as given" : "in .dev.vars"}`,
    `  state            ${shownState}`,
    "",
    "  next, in another terminal:",
    `    bin/sallyport init --url ${url} --operator-token-file ${given ? "FILE" : ".dev.vars"}`,
    "    bin/sallyport agent register alice",
    "    bin/sallyport doctor",
    "",
    `  A line for each request and each decision follows; ${JSON_LOGS} shows the log as it is.`,
    "",
  ].join("\n");
}

/** A proxy that was just ended may hold its port for a moment longer. */
async function isFreeSoon(candidate: number): Promise<boolean> {
  const deadline = Date.now() + FREE_WITHIN_MS;
  while (!(await isFree(candidate))) {
    if (Date.now() > deadline) return false;
    await new Promise((resolveLater) => setTimeout(resolveLater, 50));
  }
  return true;
}

function isFree(candidate: number): Promise<boolean> {
  return new Promise((resolveFree, reject) => {
    const server = createServer();
    server.on("error", (error) => (isCode(error, "EADDRINUSE") ? resolveFree(false) : reject(error)));
    server.listen(candidate, "127.0.0.1", () => server.close(() => resolveFree(true)));
  });
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
