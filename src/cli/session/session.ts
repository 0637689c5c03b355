/** From what is stored on this machine to a client that can act. */
import {
  type AgentClient,
  createAgentClient,
  createDeviceClient,
  createOperatorClient,
  type CredentialStore,
  importKeys,
  type OperatorClient,
  type RelayClient,
} from "../../client/index.ts";
import { type DeviceRecord, knownDevice } from "../storage/device-files.ts";
import { CliError, EXIT } from "../terminal/errors.ts";
import { type AgentRecord, type Home, openHome, type Settings } from "../storage/home.ts";
import type { Output } from "../terminal/output.ts";

/** What every command works with. */
export type Session = {
  readonly home: Home;
  readonly output: Output;
  readonly environment: NodeJS.ProcessEnv;
  /** Whether somebody is there to be asked. */
  readonly interactive: boolean;
  readonly standardInput: () => Promise<string>;
  /** Where the command was started. */
  readonly workingFolder: string;
  /** The address given for this run alone. */
  readonly givenUrl: string | undefined;
  /** Where the Sallyport is. @throws CliError `NOT_SET_UP` */
  baseUrl(): Promise<string>;
  settings(): Promise<Settings>;
  operator(): Promise<OperatorClient>;
  /** The agent that acts: the named one, the default, or the only one. */
  agentRecord(): Promise<AgentRecord>;
  agent(): Promise<{ record: AgentRecord; client: AgentClient }>;
  /** A certain agent of this machine. */
  named(name: string): Promise<{ record: AgentRecord; client: AgentClient }>;
  /** A device of this machine. @throws CliError `NO_DEVICE`, `NO_TOKEN` */
  device(name: string): Promise<{ record: DeviceRecord; client: RelayClient }>;
};

export type SessionOptions = {
  readonly environment: NodeJS.ProcessEnv;
  readonly output: Output;
  readonly interactive: boolean;
  readonly standardInput: () => Promise<string>;
  readonly workingFolder: string;
  /** `--agent` */
  readonly agentName: string | undefined;
  /** `--url` */
  readonly url: string | undefined;
};

export function openSession(options: SessionOptions): Session {
  const { environment, output, interactive } = options;
  const home = openHome(environment);
  const givenUrl = options.url ?? environment["SALLYPORT_URL"];

  const settings = async (): Promise<Settings> => {
    const stored = await home.settings();
    if (stored !== null) return givenUrl === undefined ? stored : { ...stored, baseUrl: givenUrl };
    if (givenUrl !== undefined) return { baseUrl: givenUrl };
    throw new CliError("NOT_SET_UP", `nothing is set up in ${home.path} yet`, {
      exitCode: EXIT.setup,
      advice: "Run `sallyport init` first, or give --url.",
    });
  };

  const open = async (record: AgentRecord): Promise<{ record: AgentRecord; client: AgentClient }> => {
    const keys = await importKeys(record.keys);
    const baseUrl = givenUrl ?? record.baseUrl;
    return { record, client: createAgentClient({ baseUrl, keys, credential: record, store: storeOf(home, record) }) };
  };

  const session: Session = {
    home,
    output,
    environment,
    interactive,
    standardInput: options.standardInput,
    workingFolder: options.workingFolder,
    givenUrl,
    settings,
    baseUrl: async () => (await settings()).baseUrl,

    async operator() {
      const token = await home.operatorToken();
      if (token === null) {
        throw new CliError("NO_OPERATOR_TOKEN", "this needs the operator token, and there is none here", {
          exitCode: EXIT.setup,
          advice: "Run `sallyport init --operator-token-file FILE`, or set SALLYPORT_OPERATOR_TOKEN.",
        });
      }
      return createOperatorClient({ baseUrl: await session.baseUrl(), token });
    },

    agentRecord: async () =>
      recordNamed(home, options.agentName ?? environment["SALLYPORT_AGENT"] ?? (await defaultAgentName(home))),
    agent: async () => open(await session.agentRecord()),
    named: async (name) => open(await recordNamed(home, name)),
    device: async (name) => {
      const record = await knownDevice(home.devices, name);
      return { record, client: await deviceClient(record, givenUrl) };
    },
  };
  return session;
}

/** @throws CliError `NO_TOKEN` when it has not been claimed */
export async function deviceClient(record: DeviceRecord, givenUrl: string | undefined): Promise<RelayClient> {
  const { name, agentDid, token } = record;
  if (token === null) {
    throw new CliError("NO_TOKEN", `the device ${name} has no token yet`, {
      exitCode: EXIT.setup,
      advice: `Once it is approved: \`sallyport device claim ${name}\`.`,
    });
  }
  return createDeviceClient({
    baseUrl: givenUrl ?? record.baseUrl,
    keys: await importKeys(record.keys),
    agentDid,
    token,
  });
}

/** @throws CliError `NO_AGENT` when this machine has none of that name */
export async function recordNamed(home: Home, name: string): Promise<AgentRecord> {
  const record = await home.agent(name);
  if (record !== null) return record;
  const names = await home.agentNames();
  throw new CliError("NO_AGENT", `there is no agent ${name} here`, {
    exitCode: EXIT.setup,
    advice: names.length === 0 ? "Register one: `sallyport agent register NAME`." : `There is: ${names.join(", ")}.`,
  });
}

async function defaultAgentName(home: Home): Promise<string> {
  const chosen = (await home.settings())?.defaultAgent;
  if (chosen !== undefined) return chosen;
  const names = await home.agentNames();
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

/** The agent's file as the store of its credential: several commands may run at once. */
function storeOf(home: Home, opened: AgentRecord): CredentialStore {
  return {
    update: (renew) =>
      home.updateAgent(opened.name, async (stored) => {
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
