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

const CONFLICT = 409;

/** What makes the server issue a credential for a key; whoever proves that they hold it takes all of it. */
type Issue = (publicKey: string, keys: KeysJwk) => Promise<RegisteredAgent>;

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
    const { keys, isFresh } = await keysOnDisk(home, name);
    try {
      const { agentDid, ownerDid, ait, access, refreshToken } = await issue(keys.x, keys);
      return { name, baseUrl, agentDid, ownerDid, keys, ait, access, refreshToken };
    } catch (error) {
      // What was refused is not known to the server; a key of an earlier run may be.
      if (isRefusal(error) && isFresh) await home.newKeys.remove(name);
      throw isRefusal(error) ? error : withAdvice(home, name, error);
    }
  });
  await home.newKeys.remove(name);
  return record;
}

/** The key that an earlier run has left, whose answer may have been lost, or a fresh one. */
async function keysOnDisk(home: Home, name: string): Promise<{ keys: KeysJwk; isFresh: boolean }> {
  let isFresh = false;
  const { keys } = await home.newKeys.change(name, async (left) => {
    if (left !== null) return left;
    isFresh = true;
    return { name, keys: await exportKeys(await generateKeys()) };
  });
  return { keys, isFresh };
}

/** Whether the server has said no to the request, and not that it knows the key. */
function isRefusal(error: unknown): boolean {
  return error instanceof ProblemError && error.status < 500 && error.status !== CONFLICT;
}

/** The server may know the key although it did not say so: the failure says where it is kept. */
function withAdvice(home: Home, name: string, error: unknown): unknown {
  if (!(error instanceof SallyportError)) return error;
  const file = home.newKeys.path(name);
  const completes = `\`sallyport agent list --all\` shows its DID, and \`sallyport agent rekey ${name} --did DID\` completes it`;
  const advice =
    error instanceof ProblemError && error.status === CONFLICT
      ? `The server knows the key in ${file}. If it is this agent's, whose registration was not answered: ${completes}. If it is another's, move that file away and run this again.`
      : `The key is kept in ${file}. Run the same command again. If the key is taken by then, the agent was registered: ${completes}.`;
  return new CliError(error.code, error.message, { exitCode: exitCodeOf(error), advice, cause: error });
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
