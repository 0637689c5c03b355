/** `sallyport connect install`: what the system is told to start, and that this starts. The system's own commands are stood in for. */
import { spawn } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { argumentsOf } from "../../src/cli/connect/options.ts";
import { serviceOf } from "../../src/cli/connect/service.ts";
import { newRunner, temporaryFolder } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

/** A machine whose `systemctl` and `journalctl` write down what they are asked. */
async function machine(exitCode = 0) {
  const folder = await temporaryFolder();
  const calls = join(folder, "calls");
  await mkdir(join(folder, "bin"));
  for (const name of ["systemctl", "journalctl"]) {
    const script = `#!/bin/sh\necho "${name} $*" >> "${calls}"\necho "said by ${name}" >&2\nexit ${exitCode}\n`;
    await writeFile(join(folder, "bin", name), script);
    await chmod(join(folder, "bin", name), 0o755);
  }
  const PATH = `${join(folder, "bin")}:${process.env["PATH"] ?? ""}`;
  const runner = await newRunner({
    PATH,
    XDG_CONFIG_HOME: join(folder, "config"),
    SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN,
  });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
  await runner.json(["agent", "register", "my bob"]);
  const unit = join(folder, "config/systemd/user/sallyport-connect-my\\x20bob.service");
  return { runner, unit, called: async () => (await readFile(calls, "utf8")).trim().split("\n") };
}

/** The words of a command line, by systemd.syntax(7) and systemd.service(5). */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word = ""]) =>
    word.replaceAll(/\\(.)/g, "$1").replaceAll("%%", "%").replaceAll("$$", "$"),
  );
}

const isLinux = process.platform === "linux";

test.runIf(isLinux)("a connector is installed, and what the unit says really starts it", async () => {
  const { runner, unit, called } = await machine();
  const exec = `printf '%s' "$SALLYPORT_DELIVERY_ID \\"50 %\\"" > taken`;
  const installed = await runner.run(["connect", "install", "--exec", exec, "--inbox", "--listen", "0"]);
  expect(installed, installed.err).toMatchObject({ code: 0 });
  const name = "sallyport-connect-my\\x20bob.service";
  expect(await called()).toEqual([
    "systemctl --user daemon-reload",
    `systemctl --user enable ${name}`,
    `systemctl --user restart ${name}`,
  ]);
  const text = await readFile(unit, "utf8");
  const [program = "", ...args] = wordsOf(/^ExecStart=(.*)$/m.exec(text)?.[1] ?? "");
  expect(args).toContain(exec);
  const environment = [...text.matchAll(/^Environment=(.*)$/gm)].flatMap(([, line = ""]) => wordsOf(line));
  const child = spawn(program, args, {
    cwd: /^WorkingDirectory=(.*)$/m.exec(text)?.[1],
    env: Object.fromEntries(environment.map((each) => each.split(/=(.*)/s))) as NodeJS.ProcessEnv,
    stdio: ["ignore", "ignore", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
  await expect.poll(() => said).toContain("my bob listens");
  expect((await runner.run(["connect", "status"])).out).toContain("my bob: relay open");

  expect((await runner.run(["connect", "logs"])).err).toContain("said by journalctl");
  expect((await runner.run(["connect", "uninstall"])).out).toContain("no connector of my bob any more");
  expect(existsSync(unit)).toBe(false);
  expect((await called()).at(-1)).toBe(`systemctl --user disable --now ${name}`);
  expect((await runner.run(["connect", "uninstall"])).out).toContain("ran no connector");
});

test.runIf(isLinux)("a system that starts nothing, and options that make no sense, are said so", async () => {
  const { runner, unit } = await machine(1);
  const failed = await runner.run(["connect", "install", "--exec", "true"]);
  expect(failed).toMatchObject({ code: 3, err: expect.stringContaining("said by systemctl") as string });
  for (const args of [
    ["--exec", "a\nb"],
    ["--exec", "true", "--forward-to", "http://127.0.0.1:1"],
    ["--header", "x"],
    ["--forward-to", "http://127.0.0.1:1", "--header-file", "-"],
  ])
    expect((await runner.run(["connect", "install", ...args])).code, args.join(" ")).toBe(2);
  expect(await readFile(unit, "utf8")).toContain('"true"');
});

test("launchd gets a property list, and other systems are none of ours", () => {
  const service = serviceOf("darwin", { HOME: "/Users/ann" }, "bob", 501);
  const plan = {
    name: "bob",
    command: ["/node", "a<b&c"],
    workingFolder: "/w",
    environment: { A: "1" },
    logFile: "/l",
  };
  expect(service.file).toBe("/Users/ann/Library/LaunchAgents/sallyport.connect.bob.plist");
  expect(service.describe(plan)).toContain("<array><string>/node</string><string>a&lt;b&amp;c</string></array>");
  expect(service.start).toEqual([["launchctl", "bootstrap", "gui/501", service.file]]);
  expect(() => serviceOf("win32", {}, "bob", 0)).toThrow(expect.objectContaining({ code: "NO_SERVICES" }) as Error);
});

test("the options of a connector are given again as they were", () => {
  const options = {
    forwardTo: "http://127.0.0.1:1/x",
    header: ["A: b", "C: d"],
    headerFile: "h",
    format: "raw",
    timeout: 7,
    inbox: true,
    outbox: true,
    listen: false,
    metrics: false,
  } as const;
  expect(argumentsOf(options, "/w")).toEqual(
    "--forward-to http://127.0.0.1:1/x --header|A: b|--header|C: d|--header-file /w/h --format raw --timeout 7 --inbox --outbox --no-listen".split(
      /\|| (?=--)|(?<=--[a-z-]+) /,
    ),
  );
});
