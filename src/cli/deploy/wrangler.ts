/** wrangler, the one that a checkout has in its lock file, as `deploy` uses it. */
import { spawn } from "node:child_process";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "../storage/private-file.ts";
import { CliError, EXIT } from "../terminal/errors.ts";

/** How one run of it ended. */
export type WranglerRun = { readonly status: number | null; readonly stdout: string; readonly stderr: string };

/** What a run is started with beside its arguments. */
export type RunOptions = {
  readonly environment?: Readonly<Record<string, string>>;
};

/** Runs of wrangler in one folder. */
export type Wrangler = {
  /** Runs it to its end. */
  run(args: readonly string[], options?: RunOptions): Promise<WranglerRun>;
  /** The same, where anything but success is a failure. @throws CliError `WRANGLER` with what it said */
  must(args: readonly string[], options?: RunOptions): Promise<WranglerRun>;
};

const SAID_MAX = 2_000;

/**
 * @param folder the checkout
 * @param environment of this process; wrangler reads `CLOUDFLARE_API_TOKEN` and `CLOUDFLARE_ACCOUNT_ID` there
 * @throws CliError `NOT_INSTALLED` where the checkout has no wrangler yet
 */
export async function openWrangler(folder: string, environment: NodeJS.ProcessEnv): Promise<Wrangler> {
  const program = join(folder, "node_modules/wrangler/wrangler-dist/cli.js");
  if (!(await isThere(program))) {
    throw new CliError("NOT_INSTALLED", `there is no wrangler in ${join(folder, "node_modules")}`, {
      exitCode: EXIT.setup,
      advice: "Run `npm install` there first.",
    });
  }
  // The checkout's own Node: the machine's may be too old for wrangler.
  const own = join(folder, "node_modules/.bin/node");
  const node = (await isThere(own)) ? own : process.execPath;

  const run = (args: readonly string[], options: RunOptions = {}): Promise<WranglerRun> =>
    new Promise((resolve, reject) => {
      const child = spawn(node, ["--no-warnings", program, ...args], {
        cwd: folder,
        env: {
          ...environment,
          CI: "true",
          NO_COLOR: "1",
          WRANGLER_HIDE_BANNER: "true",
          WRANGLER_SEND_METRICS: "false",
          ...options.environment,
        },
        stdio: ["ignore", "pipe", "pipe"],
      });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        stdout += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        stderr += text;
      });
      child.on("error", reject);
      child.on("close", (status) => resolve({ status, stdout, stderr }));
    });

  return {
    run,
    async must(args, options) {
      const ended = await run(args, options);
      if (ended.status === 0) return ended;
      throw wranglerFailed(args, ended);
    },
  };
}

/** @returns the failure of a run, with what it said */
export function wranglerFailed(args: readonly string[], { stdout, stderr }: WranglerRun): CliError {
  const said = `${stderr}\n${stdout}`.trim().slice(0, SAID_MAX);
  return new CliError("WRANGLER", `wrangler ${args.slice(0, 3).join(" ")} failed: ${said}`, {
    exitCode: EXIT.unavailable,
    advice: "Run the same command again once that is mended: what has been done is not done twice.",
  });
}

async function isThere(file: string): Promise<boolean> {
  try {
    await access(file);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return false;
    throw error;
  }
}
