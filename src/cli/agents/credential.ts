/** An agent's key and credential on this machine: registered, re-keyed. The key is on disk before the server knows it. */
import {
  exportKeys,
  generateKeys,
  type KeysJwk,
  ProblemError,
  type RegisteredAgent,
  SallyportError,
} from "../../client/index.ts";
import type { AgentRecord } from "../storage/agent-files.ts";
import type { Home } from "../storage/home.ts";
import { isRecordName } from "../storage/record-files.ts";
import { CliError, EXIT, exitCodeOf, usage } from "../terminal/errors.ts";

/** What makes the server issue a credential for a key. */
type Issue = (publicKey: string) => Promise<RegisteredAgent>;

/**
 * Stores a new agent under a name that is free here.
 *
 * @param baseUrl the address that `issue` asks
 * @returns the agent's record, which is on disk
 * @throws CliError `NAME_TAKEN`, `UNWRITABLE` before anything is registered, and whatever `issue` throws
 */
export async function storeNewAgent(home: Home, name: string, baseUrl: string, issue: Issue): Promise<AgentRecord> {
  mustBeName(name);
  return issued(home, name, baseUrl, issue, (stored) => {
    if (stored !== null) throw nameTaken(home, name);
  });
}

/**
 * Stores another key and credential of an agent that is here.
 *
 * @param agent as it was read
 * @param issue makes the server issue the credential
 * @throws CliError `REKEYED` when the file is another agent's meanwhile, and as {@link storeNewAgent}
 */
export async function storeRekeyed(
  home: Home,
  agent: AgentRecord,
  baseUrl: string,
  issue: Issue,
): Promise<AgentRecord> {
  return issued(home, agent.name, baseUrl, issue, (stored) => {
    if (stored?.agentDid === agent.agentDid) return;
    throw new CliError("REKEYED", `${home.agents.path(agent.name)} has become another agent's meanwhile`, {
      exitCode: EXIT.setup,
      advice: "Start this command again.",
    });
  });
}

/** @throws CliError when an agent of this machine cannot have the name, or one has it already */
export async function mustBeFree(home: Home, name: string): Promise<void> {
  mustBeName(name);
  if ((await home.agents.get(name)) !== null) throw nameTaken(home, name);
}

async function issued(
  home: Home,
  name: string,
  baseUrl: string,
  issue: Issue,
  check: (stored: AgentRecord | null) => void,
): Promise<AgentRecord> {
  const record = await home.agents.change(name, async (stored) => {
    check(stored);
    const keys = await keysOnDisk(home, name);
    const { agentDid, ownerDid, ait, access, refreshToken } = await withAdvice(home, name, () => issue(keys.x));
    return { name, baseUrl, agentDid, ownerDid, keys, ait, access, refreshToken };
  });
  await home.newKeys.remove(name);
  return record;
}

/** The key that an earlier run has left, whose answer may have been lost, or a fresh one. */
async function keysOnDisk(home: Home, name: string): Promise<KeysJwk> {
  const { keys } = await home.newKeys.change(
    name,
    async (left) => left ?? { name, keys: await exportKeys(await generateKeys()) },
  );
  return keys;
}

/** The server may know the key although it did not say so: the failure says where it is kept. */
async function withAdvice<T>(home: Home, name: string, issue: () => Promise<T>): Promise<T> {
  try {
    return await issue();
  } catch (error) {
    if (!(error instanceof SallyportError)) throw error;
    const mayBeKnown = !(error instanceof ProblemError) || error.status >= 500 || error.status === 409;
    if (!mayBeKnown) throw error;
    const known = `\`sallyport agent list --all\` shows its DID, and \`sallyport agent rekey ${name} --did DID\` completes it`;
    throw new CliError(error.code, error.message, {
      exitCode: exitCodeOf(error),
      advice: `The key is kept in ${home.newKeys.path(name)}. Run the same command again. If the key is taken by then, the agent was registered: ${known}.`,
      cause: error,
    });
  }
}

function mustBeName(name: string): void {
  if (isRecordName(name)) return;
  throw usage("an agent's name has 1 to 64 of A-Z a-z 0-9 . _ - and space, and begins with no dot");
}

function nameTaken(home: Home, name: string): CliError {
  return new CliError("NAME_TAKEN", `there is an agent ${name} here already`, {
    exitCode: EXIT.setup,
    advice: `Take another name, or move its file away: ${home.agents.path(name)}`,
  });
}
