/**
 * `npm run serve`: serves on this machine without Cloudflare, one process group, state on its disk. Builds the bundle that would be
 * deployed, applies the migrations, and prints one line when it answers; after that, the Worker's log, a line of JSON each.
 *
 * `PORT` (8787) and `HOST` (127.0.0.1) are where it listens, `STATE_DIR` (`.state`) is where it keeps everything; each setting of
 * docs/operations.md may be given in the environment by its name.
 */
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { openHost, projectSettings } from "./self-hosted/host.ts";
import { serveSettings } from "./self-hosted/settings.ts";
import { claimState } from "./state-claim.ts";

const root = join(import.meta.dirname, "..");
const EX_CONFIG = 78;

const address = process.env["HOST"] ?? "127.0.0.1";
const port = Number(process.env["PORT"] ?? "8787");
const stateDir = resolve(root, process.env["STATE_DIR"] ?? ".state");
const url = `http://${address.includes(":") ? `[${address}]` : address}:${port}`;

if (!Number.isInteger(port) || port < 1 || port > 65_535) refuse(["PORT must be a port"]);
// For this user alone, the secrets in it as well.
process.umask(0o077);
mkdirSync(stateDir, { recursive: true });
const claim = await claimState(stateDir, url);
if (!claim.ok) refuse([`${stateDir} is served already: ${claim.error}`]);
const settings = serveSettings(process.env, projectSettings(), stateDir);
if (!settings.ok) refuse(settings.error.map(({ setting, problem }) => `${setting} ${problem}`));
if (settings.value.madeFile !== null)
  console.error(`made ${settings.value.madeFile} with the operator token and the signing secret: keep a copy of it`);

const bundle = await built();
const host = await openHost({
  bundle: () => bundle,
  stateDir,
  address,
  port,
  settings: settings.value.settings,
  onLine: (_level, line) => console.log(line),
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  // Miniflare's own handler ends the process before the runtime has.
  process.removeAllListeners(signal);
  process.once(signal, () => void host.stop().then(() => process.exit(0)));
}
await answers();
console.error(`sallyport ready on ${url}`);
void watch();

/** The bundle that would be deployed, built into the state: the checkout may be read-only. */
async function built(): Promise<string> {
  const folder = join(stateDir, "bundle");
  const env = { ...process.env, CI: "true", WRANGLER_SEND_METRICS: "false", WRANGLER_LOG_PATH: join(stateDir, "logs") };
  const wrangler = join(root, "node_modules/wrangler/wrangler-dist/cli.js");
  await promisify(execFile)(process.execPath, ["--no-warnings", wrangler, "deploy", "--dry-run", "--outdir", folder], {
    cwd: root,
    env,
  });
  return readFileSync(join(folder, "worker.js"), "utf8");
}

async function answers(): Promise<void> {
  const response = await fetch(`${url}/health`);
  await response.body?.cancel();
  if (!response.ok) refuse([`it answers ${response.status} on ${url}/health; its log says why`]);
}

/** A runtime that has gone is for the supervisor to start again: this process ends with it. */
async function watch(): Promise<never> {
  for (let failures = 0; ;) {
    // oxlint-disable-next-line no-await-in-loop -- for as long as it serves
    await new Promise((resolveLater) => setTimeout(resolveLater, 2_000));
    // oxlint-disable-next-line no-await-in-loop -- as above
    failures = await fetch(`${url}/health`, { signal: AbortSignal.timeout(10_000) }).then(
      (response) => response.body?.cancel().then(() => 0) ?? 0,
      () => failures + 1,
    );
    if (failures < 3) continue;
    console.error(`no answer on ${url} any more`);
    process.exit(1);
  }
}

function refuse(problems: readonly string[]): never {
  for (const problem of problems) console.error(problem);
  process.exit(EX_CONFIG);
}
