/** Runs the command as a user does, each test with a home folder of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { runProgram } from "../../src/cli/program.ts";

export const PROGRAM = join(import.meta.dirname, "../../bin/sallyport");

export type Ended = { readonly code: number | null; readonly out: string; readonly err: string };

/** @returns a folder that is gone when the test is over */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-test-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export type Runner = {
  readonly home: string;
  /** Where the command is started. */
  readonly workingFolder: string;
  /** Runs the command to its end. */
  run(args: readonly string[], input?: string): Promise<Ended>;
  /** Runs it with `--json` and gives what it says. @throws Error when it fails */
  json(args: readonly string[], input?: string): Promise<unknown>;
};

/** A runner of real processes, which can also be left running. */
export type ProcessRunner = Runner & {
  /** Starts the command; it is gone when the test is over. */
  start(args: readonly string[]): ChildProcess;
};

/** Runs the real program as a process of its own. @param program the file that is started, e.g. a symlink to it */
export async function newRunner(
  environment: Record<string, string> = {},
  program: string = PROGRAM,
): Promise<ProcessRunner> {
  const { home, workingFolder } = await machine();
  const env = { ...base(home), ...environment };
  const run = (args: readonly string[], input: string) => spawned(program, args, input, env, workingFolder);
  return {
    ...runner(home, workingFolder, run),
    start(args) {
      const child = spawn(program, args, { cwd: workingFolder, env, stdio: ["ignore", "pipe", "ignore"] });
      onTestFinished(() => void child.kill("SIGKILL"));
      return child;
    },
  };
}

/** Runs the same program inside the test: as a process each of hundreds of runs would cost a second. */
export async function newInnerRunner(environment: Record<string, string> = {}): Promise<Runner> {
  const { home, workingFolder } = await machine();
  return runner(home, workingFolder, async (args, input) => {
    let out = "";
    let err = "";
    const code = await runProgram(args, {
      streams: {
        out: (text) => {
          out += text;
          return Promise.resolve();
        },
        err: (text) => void (err += text),
      },
      environment: { ...base(home), ...environment },
      interactive: false,
      useNetwork: () => ({}),
      workingFolder,
      standardInput: () => Promise.resolve(Buffer.from(input)),
    });
    return { code, out, err };
  });
}

/** A home that the command makes itself, and a folder to work in. */
async function machine(): Promise<{ home: string; workingFolder: string }> {
  const workingFolder = await temporaryFolder();
  return { home: join(workingFolder, "home"), workingFolder };
}

const base = (home: string) => ({ PATH: process.env["PATH"] ?? "", HOME: home, SALLYPORT_HOME: home });

function runner(
  home: string,
  workingFolder: string,
  start: (args: readonly string[], input: string) => Promise<Ended>,
): Runner {
  const run = (args: readonly string[], input = ""): Promise<Ended> => start(args, input);
  return {
    home,
    workingFolder,
    run,
    async json(args, input) {
      const ended = await run([...args, "--json"], input);
      if (ended.code !== 0) throw new Error(`exit code ${ended.code}: ${ended.err}`);
      return JSON.parse(ended.out) as unknown;
    },
  };
}

function spawned(
  program: string,
  args: readonly string[],
  input: string,
  env: Record<string, string>,
  cwd: string,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env, stdio: ["pipe", "pipe", "pipe"] });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out, err }));
    child.stdin.end(input);
  });
}
