/**
 * `npm run dev`: serves the proxy on this machine. Makes its secrets where there are none, applies the migrations, starts
 * wrangler, and prints one line when it answers. Arguments after `--` go to wrangler.
 */
import { spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const port = process.env["PORT"] ?? "8787";
const stateDir = process.env["STATE_DIR"] ?? ".wrangler/state";
const url = `http://127.0.0.1:${port}`;
const READY_WITHIN_MS = 60_000;

/** No usage figures, no look-up of the machine's whereabouts: nothing here needs the network. */
const environment = {
  ...process.env,
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  WRANGLER_SEND_METRICS: "false",
  WRANGLER_LOG_PATH: join(root, ".wrangler/logs"),
  CI: "true",
};

makeSecrets();
await migrate();
serve();

/** `.dev.vars` with a random operator token and signing secret, readable by its owner alone. */
function makeSecrets(): void {
  const path = join(root, ".dev.vars");
  if (existsSync(path)) return;
  const secret = (): string => randomBytes(32).toString("base64url");
  const text = `# Secrets of this machine's own proxy, made on its first start. Never commit them.\nOPERATOR_TOKEN="${secret()}"\nREGISTRY_SIGNING_SECRET="${secret()}"\n`;
  try {
    writeFileSync(path, text, { mode: 0o600, flag: "wx" });
    console.error("made .dev.vars with a random operator token and signing secret");
  } catch (error) {
    // Two starts at once: the first one's secrets count.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

/** Brings the local database up to the newest migration. */
async function migrate(): Promise<void> {
  const args = ["d1", "migrations", "apply", "DB", "--local", "--persist-to", stateDir];
  const child = spawn(join(root, "node_modules/.bin/wrangler"), args, { cwd: root, env: environment, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("exit", resolve));
  if (code === 0) return;
  console.error(output);
  console.error("the migrations could not be applied; is another proxy using the same STATE_DIR?");
  process.exit(1);
}

function serve(): void {
  const args = ["dev", "--ip", "127.0.0.1", "--port", port, "--persist-to", stateDir, "--show-interactive-dev-session=false", ...process.argv.slice(2)];
  const child = spawn(join(root, "node_modules/.bin/wrangler"), args, { cwd: root, env: environment, stdio: ["ignore", "inherit", "inherit"] });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => process.exit(code ?? (signal === null ? 1 : 0)));
  void announce();
}

/** One line, once requests are answered: scripts wait for it. */
async function announce(): Promise<void> {
  const deadline = Date.now() + READY_WITHIN_MS;
  while (Date.now() < deadline) {
    const answered = await fetch(`${url}/health`).then(
      (response) => response.body?.cancel().then(() => true),
      () => false,
    );
    if (answered === true) {
      console.log(`sallyport ready on ${url}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  console.error(`no answer on ${url} within ${READY_WITHIN_MS / 1_000} s`);
}
