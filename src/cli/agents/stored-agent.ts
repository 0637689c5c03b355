/** From an agent's file on this machine to a client that can act, beside whatever else uses that file. */
import {
  type AgentClient,
  type AgentClientOptions,
  type ConnectionOptions,
  createAgentClient,
  type CredentialStore,
  importKeys,
} from "../../client/index.ts";
import type { AgentRecord } from "../storage/agent-files.ts";
import type { Home } from "../storage/home.ts";
import { CliError, EXIT } from "../terminal/errors.ts";

/**
 * @param given the name that was asked for
 * @returns the name of the agent that acts: the given one, the default, or the only one
 * @throws CliError `NO_AGENT`
 */
export async function chosenAgentName(home: Home, given: string | undefined): Promise<string> {
  if (given !== undefined) return given;
  const chosen = (await home.settings.get())?.defaultAgent;
  if (chosen !== undefined) return chosen;
  const names = await home.agents.names();
  const [only] = names;
  if (only !== undefined && names.length === 1) return only;
  throw new CliError("NO_AGENT", names.length === 0 ? "there is no agent here yet" : "there are several agents here", {
    exitCode: EXIT.setup,
    advice:
      names.length === 0
        ? "Register one: `sallyport agent register NAME`."
        : `Name one with --agent: ${names.join(", ")}.`,
  });
}

/**
 * @param record the agent as it is stored
 * @param connection where its Sallyport is, and the way there
 * @param failure what becomes of the failure to change the agent's file
 * @returns the agent's client, which keeps its credential in the agent's file
 */
export async function openStoredAgent(
  home: Home,
  record: AgentRecord,
  connection: ConnectionOptions & Pick<AgentClientOptions, "replyLimit">,
  failure: (error: unknown) => unknown = (error) => error,
): Promise<AgentClient> {
  const keys = await importKeys(record.keys);
  const files = storeOf(home, record);
  const store: CredentialStore = {
    update: (renew) => files.update(renew).catch((error: unknown) => Promise.reject(failure(error) as Error)),
  };
  return createAgentClient({ ...connection, keys, credential: record, store });
}

/** The agent's file as the store of its credential: several commands may run at once. */
function storeOf(home: Home, opened: AgentRecord): CredentialStore {
  return {
    update: (renew) =>
      home.agents.update(opened.name, async (stored) => {
        if (stored.keys.x !== opened.keys.x) {
          throw new CliError("REKEYED", `the agent ${opened.name} has got another key meanwhile`, {
            exitCode: EXIT.credential,
            advice: "Start this command again.",
          });
        }
        const { agentDid, ait, access, refreshToken } = stored;
        const current = { agentDid, ait, access, refreshToken };
        const renewed = await renew(current);
        return renewed === current ? stored : { ...stored, ...renewed };
      }),
  };
}
