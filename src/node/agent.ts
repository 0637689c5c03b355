/**
 * An agent of this machine, from the files that the command `sallyport` keeps.
 *
 * @example
 * ```ts
 * const agent = await openAgent("alice");
 * await agent.send({ to: peerDid, payload: { text: "hello" } });
 * agent.close();
 * ```
 */
import { chosenAgentName, openStoredAgent } from "../cli/agents/stored-agent.ts";
import { addressFor } from "../cli/session/address.ts";
import { networkTo } from "../cli/session/network.ts";
import { openHome } from "../cli/storage/home.ts";
import { CliError } from "../cli/terminal/errors.ts";
import { type AgentClient, type AgentClientOptions, InvalidArgumentError, SallyportError } from "../client/index.ts";

/** Where the agent is, beside the variables `SALLYPORT_HOME`, `SALLYPORT_AGENT`, `SALLYPORT_URL` and those of proxies. */
export type OpenAgentOptions = {
  /** The command's folder; `SALLYPORT_HOME` or `~/.sallyport` by default. */
  readonly home?: string | undefined;
  /** Instead of `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
  /** How long one call may take, in milliseconds; 30,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** How many replies one conversation gets; 32 within ten minutes by default. */
  readonly replyLimit?: AgentClientOptions["replyLimit"];
  /** Believes the server's clock also where it is more than ten minutes ahead of the own; false by default. */
  readonly trustServerClock?: boolean | undefined;
};

/** What cannot be opened on this machine; `code` is the command's own, e.g. `NO_AGENT`, `LOCKED`, `UNSAFE_PERMISSIONS`. */
export class AgentFileError extends SallyportError {
  override readonly name = "AgentFileError";
}

/**
 * Opens an agent that the command has registered or joined. Program and command may run side by side: whoever renews the
 * credential does so under one lock, and stores it for the other.
 *
 * @param name as `sallyport agent list` shows it; by default the one that acts when the command is given none
 * @returns the agent; call its `close` when it is no longer needed
 * @throws AgentFileError, InvalidArgumentError, InvalidKeyError
 */
export async function openAgent(name?: string, options: OpenAgentOptions = {}): Promise<AgentClient> {
  mustBeText("name", name);
  mustBeText("home", options.home);
  const environment = { ...(options.environment ?? process.env) };
  if (options.home !== undefined) environment["SALLYPORT_HOME"] = options.home;
  try {
    const home = openHome(environment);
    const record = await home.agents.known(await chosenAgentName(home, name ?? environment["SALLYPORT_AGENT"]));
    const bound = { what: `the credential of ${record.name}`, baseUrl: record.baseUrl };
    const baseUrl = addressFor(bound, environment["SALLYPORT_URL"]);
    return await openStoredAgent(
      home,
      record,
      {
        ...networkTo(environment, new URL(baseUrl)),
        baseUrl,
        timeoutMs: options.timeoutMs,
        trustServerClock: options.trustServerClock,
        replyLimit: options.replyLimit,
      },
      translated,
    );
  } catch (error) {
    throw translated(error);
  }
}

function mustBeText(argument: string, value: unknown): void {
  if (value !== undefined && (typeof value !== "string" || value === ""))
    throw new InvalidArgumentError(argument, "is no text");
}

/** The command's failures, without what concerns its own process. */
function translated(error: unknown): unknown {
  if (!(error instanceof CliError)) return error;
  const { code, message, advice } = error;
  return new AgentFileError(code, advice === null ? message : `${message}. ${advice}`, { cause: error });
}
