/** The command `sallyport`: its options, its families, and how an action is run. */
import { Command, CommanderError } from "commander";
import { EXIT, type ExitCode, usage } from "./terminal/errors.ts";
import { agentFamily } from "./commands/agents/agent.ts";
import { apiKeyFamily } from "./commands/agents/apikey.ts";
import { auditFamily } from "./commands/installation/audit.ts";
import { authzFamily } from "./commands/installation/authz.ts";
import { completionFamily } from "./commands/installation/completion.ts";
import { connectFamily } from "./commands/messages/connect.ts";
import { deadLettersFamily } from "./commands/messages/dead-letters.ts";
import { deviceFamily } from "./commands/agents/device.ts";
import { deployFamily } from "./commands/installation/deploy.ts";
import { doctorFamily } from "./commands/installation/doctor.ts";
import { inboxFamily } from "./commands/messages/inbox.ts";
import { groupFamily } from "./commands/agents/group.ts";
import { initFamily } from "./commands/installation/init.ts";
import { inviteFamily } from "./commands/installation/invite.ts";
import { joinFamily } from "./commands/installation/join.ts";
import { listenFamily } from "./commands/messages/listen.ts";
import { messageFamily } from "./commands/messages/message.ts";
import { operatorFamily } from "./commands/installation/operator.ts";
import { pairFamily } from "./commands/agents/pair.ts";
import { sharedFamily } from "./commands/agents/shared.ts";
import { taskFamily } from "./commands/messages/task.ts";
import { trustFamily } from "./commands/agents/trust.ts";
import { escapeForTerminal } from "../wire/text.ts";
import { VERSION } from "../wire/version.ts";
import { addExamples } from "./help/examples.ts";
import type { Network } from "./session/network.ts";
import type { Family, Run } from "./session/command.ts";
import { createOutput, type Streams } from "./terminal/output.ts";
import { openSession } from "./session/session.ts";

/** A new family is one file, and one entry here. */
const FAMILIES: readonly Family[] = [
  initFamily,
  joinFamily,
  agentFamily,
  pairFamily,
  groupFamily,
  messageFamily,
  listenFamily,
  connectFamily,
  inboxFamily,
  deadLettersFamily,
  deviceFamily,
  sharedFamily,
  taskFamily,
  apiKeyFamily,
  authzFamily,
  trustFamily,
  inviteFamily,
  operatorFamily,
  auditFamily,
  deployFamily,
  doctorFamily,
  completionFamily,
];

const EXIT_CODES = `
Exit codes:
  0  done
  1  unexpected: a defect
  2  the arguments make no sense
  3  something is missing or unsafe on this machine
  4  the server said no
  5  the credential is over, or was never one
  6  no answer, or not at the moment: try again later
  7  doctor found something wrong

Environment:
  SALLYPORT_HOME            folder for settings, keys and tokens (~/.sallyport); only you can read it
  SALLYPORT_URL             address, instead of the stored one
  SALLYPORT_AGENT           the agent that acts, instead of the default
  SALLYPORT_OPERATOR_TOKEN  operator token, instead of the stored one
  SALLYPORT_API_KEY         key of a service account, which acts instead of the agent where it may
  HTTPS_PROXY, HTTP_PROXY   proxy to go out by; NO_PROXY: hosts that need none, this machine never does
`;

/** What surrounds the command: a process, or a test. */
export type Host = {
  readonly streams: Streams;
  readonly environment: NodeJS.ProcessEnv;
  /** Whether a person is there to be asked. */
  readonly interactive: boolean;
  /** All of standard input in bytes, when a command wants it. */
  readonly standardInput: () => Promise<Uint8Array>;
  /** Where it was started. */
  readonly workingFolder: string;
  /** The way to an address, before requests go there. */
  readonly useNetwork: (address: URL) => Network;
};

type GlobalOptions = { json?: boolean; agent?: string; url?: string; trustClock?: boolean };

/**
 * Runs one command line.
 *
 * @param args without the program's own name
 * @returns the exit code
 */
export async function runProgram(args: readonly string[], host: Host): Promise<ExitCode> {
  const wantsJson = args.includes("--json");
  const program = new Command("sallyport");
  let help = "";
  program
    .description("The front gate for AI agents: register, pair, send, listen.")
    .version(VERSION, "--version", "which version this is")
    .option("--json", "JSON on standard output, failures as JSON on the error stream; never asks")
    .option("--agent <name>", "the agent that acts")
    .option("--url <url>", "address of the Sallyport, for this run; it is not stored")
    .option(
      "--trust-clock",
      "believe the server's clock also where it is more than ten minutes ahead of this machine's",
    )
    .addHelpText("after", EXIT_CODES)
    .showHelpAfterError("(see --help)")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void (help += text),
      writeErr: (text) => (wantsJson ? undefined : host.streams.err(escapeForTerminal(text, "\n"))),
    });

  let exitCode: ExitCode = EXIT.ok;
  const run: Run = async (action) => {
    const { json, agent, url, trustClock = false } = program.opts<GlobalOptions>();
    const output = createOutput(host.streams, json ?? false);
    const interactive = host.interactive && !output.json;
    const { environment, standardInput, workingFolder, useNetwork } = host;
    const given = { agentName: agent, url, trustClock };
    const session = openSession({
      environment,
      output,
      interactive,
      standardInput,
      workingFolder,
      useNetwork,
      ...given,
    });
    exitCode = ((await action(session)) ?? EXIT.ok) as ExitCode;
  };
  for (const family of FAMILIES) family(program, run);
  addExamples(program);

  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) {
        await host.streams.out(help);
        return EXIT.ok;
      }
      // For people commander has said it already.
      return wantsJson ? createOutput(host.streams, wantsJson).failure(usage(error.message)) : EXIT.usage;
    }
    return createOutput(host.streams, wantsJson).failure(error);
  }
}
