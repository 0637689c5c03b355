/** `sallyport connect install`, `uninstall` and `logs`: a connector that the system keeps running. */
import { realpath } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { connectFiles } from "../../connect/files.ts";
import { argumentsOf, type ConnectOptions, withConnectOptions } from "../../connect/options.ts";
import { installService, removeService, type Service, serviceOf, showLogs } from "../../connect/service.ts";
import { chosenTarget } from "../../connect/target.ts";
import type { Run } from "../../session/command.ts";
import type { Session } from "../../session/session.ts";
import { usage } from "../../terminal/errors.ts";

/** Adds them to `connect`. */
export function addService(connect: Command, run: Run): void {
  withConnectOptions(
    connect
      .command("install")
      .description("have the system run the connector, with these options: a systemd user unit, or a launchd agent"),
  ).action((_options: unknown, command: Command) => run((session) => install(session, command)));
  connect
    .command("uninstall")
    .description("end the connector that the system runs, and have it run none")
    .action(() => run(uninstall));
  connect
    .command("logs")
    .description("what the connector that the system runs has said")
    .option("--follow", "and what it goes on to say")
    .action((options: { follow?: boolean }) => run((session) => logs(session, options.follow ?? false)));
}

async function install(session: Session, command: Command): Promise<void> {
  // What stands behind `connect install` is the parent's option as well, which takes it first.
  const options = command.optsWithGlobals<ConnectOptions>();
  const { record, service, logFile } = await opened(session);
  if (options.headerFile === "-")
    throw usage("--header-file is a file here: standard input is gone when the system starts it");
  await chosenTarget(session, options, new Uint8Array(32));
  const program = await realpath(process.argv[1] ?? "");
  await installService(service, {
    name: record.name,
    command: [
      process.execPath,
      program,
      "--agent",
      record.name,
      "connect",
      ...argumentsOf(options, session.workingFolder),
    ],
    workingFolder: session.workingFolder,
    environment: {
      SALLYPORT_HOME: resolve(session.workingFolder, session.home.path),
      PATH: session.environment["PATH"] ?? "",
    },
    logFile,
  });
  await session.output.result({ installed: service.file }, [
    `the connector of ${record.name} runs, and starts with your session: ${service.file}`,
    "`sallyport connect status` and `sallyport connect logs` show what it does",
  ]);
  if (process.platform === "linux")
    session.output.remark("to have it run without a session too: loginctl enable-linger");
}

async function uninstall(session: Session): Promise<void> {
  const { record, service } = await opened(session);
  const wasThere = await removeService(service);
  await session.output.result(
    { removed: wasThere },
    wasThere
      ? `the system runs no connector of ${record.name} any more`
      : `the system ran no connector of ${record.name}`,
  );
}

async function logs(session: Session, follow: boolean): Promise<void> {
  const { service, logFile } = await opened(session);
  await showLogs(service, logFile, follow);
}

async function opened(session: Session): Promise<{ record: { name: string }; service: Service; logFile: string }> {
  const record = await session.agentRecord();
  const service = serviceOf(process.platform, session.environment, record.name, process.getuid?.() ?? 0);
  return { record, service, logFile: join(connectFiles(session.home.path, record.name).folder, "log") };
}
