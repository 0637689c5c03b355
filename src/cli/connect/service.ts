/** A connector that the system starts with its user's session and keeps running: a systemd user unit, or a launchd agent. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { hasCode } from "../storage/private-file.ts";
import { CliError, EXIT, usage } from "../terminal/errors.ts";

/** What is to run. */
export type ServicePlan = {
  /** Of the agent. */
  readonly name: string;
  /** The program and its arguments; the first by an absolute path. */
  readonly command: readonly string[];
  readonly workingFolder: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Where its output goes, where the system keeps none itself. */
  readonly logFile: string;
};

/** How one system runs it. */
export type Service = {
  /** The file that describes it to the system. */
  readonly file: string;
  describe(plan: ServicePlan): string;
  /** Commands of the system, in order; the first word is the program. */
  readonly start: readonly (readonly string[])[];
  readonly stop: readonly (readonly string[])[];
  logs(logFile: string, follow: boolean): readonly string[];
};

/** Exit codes after which starting again helps nobody: arguments, this machine, the credential. */
const FINAL_EXITS = [EXIT.usage, EXIT.setup, EXIT.credential];
const RESTART_SECONDS = 5;
const LOG_LINES = "200";

/**
 * @param platform as `process.platform` says it
 * @param environment where `HOME` and `XDG_CONFIG_HOME` are
 * @param name of the agent
 * @param userId of the system
 * @throws CliError `NO_SERVICES` where there is neither of the two
 */
export function serviceOf(platform: string, environment: NodeJS.ProcessEnv, name: string, userId: number): Service {
  const home = environment["HOME"] ?? "";
  // No name of an agent holds a backslash, so no two share a unit.
  const plain = name.replaceAll(" ", "\\x20");
  if (platform === "linux") {
    const unit = `sallyport-connect-${plain}.service`;
    return {
      file: join(environment["XDG_CONFIG_HOME"] ?? join(home, ".config"), "systemd/user", unit),
      describe: systemdUnit,
      start: [systemctl("daemon-reload"), systemctl("enable", unit), systemctl("restart", unit)],
      stop: [systemctl("disable", "--now", unit)],
      logs: (_file, follow) => [
        "journalctl",
        "--user",
        "--no-pager",
        "-o",
        "cat",
        "-n",
        LOG_LINES,
        ...(follow ? ["-f"] : []),
        "-u",
        unit,
      ],
    };
  }
  if (platform === "darwin") {
    const label = `sallyport.connect.${plain}`;
    const file = join(home, "Library/LaunchAgents", `${label}.plist`);
    return {
      file,
      describe: (plan) => launchdAgent(label, plan),
      start: [["launchctl", "bootstrap", `gui/${userId}`, file]],
      stop: [["launchctl", "bootout", `gui/${userId}/${label}`]],
      logs: (logFile, follow) => ["tail", "-n", LOG_LINES, ...(follow ? ["-F"] : []), logFile],
    };
  }
  throw new CliError("NO_SERVICES", `${platform} has neither systemd nor launchd`, {
    exitCode: EXIT.setup,
    advice: "Start `sallyport connect …` by what this system starts programs with.",
  });
}

/** Writes what the system needs, and has it start the connector; one that runs already is started anew. */
export async function installService(service: Service, plan: ServicePlan): Promise<void> {
  if ([...plan.command, plan.workingFolder].some((text) => /[\p{Cc}]/u.test(text)))
    throw usage("an argument holds a line break or another control character");
  await mkdir(dirname(service.file), { recursive: true });
  // Headers may stand among its arguments.
  await writeFile(service.file, service.describe(plan), { mode: 0o600 });
  for (const command of service.start) await run(command);
}

/** @returns whether there was one */
export async function removeService(service: Service): Promise<boolean> {
  const stopped = await Promise.allSettled(service.stop.map(run));
  try {
    await rm(service.file);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
  // A unit that is gone already stops nothing; one that is there must have stopped.
  for (const each of stopped) if (each.status === "rejected") throw each.reason;
  return true;
}

/** Shows the log on standard output, until it ends or its reader does. */
export async function showLogs(service: Service, logFile: string, follow: boolean): Promise<void> {
  const [program = "", ...args] = service.logs(logFile, follow);
  const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit"] });
  const [code] = (await Promise.race([once(child, "close"), failure(child, program)])) as [number | null];
  if (code !== 0) throw failed(program, `ended with ${code}`);
}

async function run(command: readonly string[]): Promise<void> {
  const [program = "", ...args] = command;
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  const [code] = (await Promise.race([once(child, "close"), failure(child, program)])) as [number | null];
  if (code !== 0) throw failed(command.join(" "), said.trim().split("\n")[0] ?? `exit code ${code}`);
}

async function failure(child: ReturnType<typeof spawn>, program: string): Promise<never> {
  const [error] = (await once(child, "error")) as [Error];
  throw failed(program, error.message);
}

function failed(what: string, why: string): CliError {
  return new CliError("SERVICE", `${what}: ${why}`, {
    exitCode: EXIT.setup,
    advice: "The user's own systemd or launchd must run; over ssh or in a container it may not.",
  });
}

/** One word, by systemd.syntax(7). */
const quoted = (text: string): string =>
  `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%")}"`;
/** Only in a command line a dollar means a variable. */
const argument = (text: string): string => quoted(text).replaceAll("$", "$$$$");

function systemctl(...args: string[]): string[] {
  return ["systemctl", "--user", ...args];
}

/** systemd.service(5). */
function systemdUnit({ name, command, workingFolder, environment }: ServicePlan): string {
  return `[Unit]
Description=Sallyport connector of ${name}

[Service]
ExecStart=${command.map(argument).join(" ")}
WorkingDirectory=${workingFolder.replaceAll("%", "%%")}
${Object.entries(environment)
  .map(([key, value]) => `Environment=${quoted(`${key}=${value}`)}`)
  .join("\n")}
UMask=0077
NoNewPrivileges=yes
Restart=on-failure
RestartSec=${RESTART_SECONDS}
RestartPreventExitStatus=${FINAL_EXITS.join(" ")}

[Install]
WantedBy=default.target
`;
}

/** A string of a property list. */
const text = (value: string): string =>
  `<string>${value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")}</string>`;

/** launchd.plist(5). */
function launchdAgent(label: string, { command, workingFolder, environment, logFile }: ServicePlan): string {
  const variables = Object.entries(environment).map(([key, value]) => `<key>${key}</key>${text(value)}`);
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>Label</key>${text(label)}
<key>ProgramArguments</key><array>${command.map(text).join("")}</array>
<key>WorkingDirectory</key>${text(workingFolder)}
<key>EnvironmentVariables</key><dict>${variables.join("")}</dict>
<key>StandardErrorPath</key>${text(logFile)}
<key>Umask</key><integer>63</integer>
<key>RunAtLoad</key><true/>
<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
<key>ThrottleInterval</key><integer>${RESTART_SECONDS}</integer>
</dict></plist>
`;
}
