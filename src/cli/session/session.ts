/** From what is stored on this machine to a client that can act. */
import {
  type AgentClient,
  type ConnectionOptions,
  createDeviceClient,
  createOperatorClient,
  type DeviceClientOptions,
  importKeys,
  type OperatorClient,
  type RelayClient,
} from "../../client/index.ts";
import type { DeviceRecord } from "../storage/device-files.ts";
import { CliError, EXIT } from "../terminal/errors.ts";
import type { AgentRecord } from "../storage/agent-files.ts";
import { type Home, openHome } from "../storage/home.ts";
import type { Output } from "../terminal/output.ts";
import { chosenAgentName, openStoredAgent } from "../agents/stored-agent.ts";
import { addressFor, parseAddress } from "./address.ts";
import type { Network } from "./network.ts";

/** What every command works with. */
export type Session = {
  readonly home: Home;
  readonly output: Output;
  readonly environment: NodeJS.ProcessEnv;
  /** Whether a person is there to be asked. */
  readonly interactive: boolean;
  /** All of standard input, in bytes. */
  readonly standardInput: () => Promise<Uint8Array>;
  /** Where the command was started. */
  readonly workingFolder: string;
  /** The address given for this run alone; never stored as the one to use. */
  readonly givenUrl: string | undefined;
  /** What every client is made with: the address, and how far the server's clock is believed. @throws CliError `PROXY_SETTING` */
  connection(baseUrl: string): ConnectionOptions;
  /** Where the Sallyport is in this run. No secret of this machine goes there unchecked. @throws CliError `NOT_SET_UP` */
  baseUrl(): Promise<string>;
  /** @throws CliError `NO_OPERATOR_TOKEN`, `OTHER_ORIGIN` */
  operator(): Promise<OperatorClient>;
  /** The agent that acts: the named one, the default, or the only one. */
  agentRecord(): Promise<AgentRecord>;
  /** @throws CliError `NO_AGENT`, `OTHER_ORIGIN` */
  agent(): Promise<{ record: AgentRecord; client: AgentClient }>;
  /** A certain agent of this machine. */
  named(name: string): Promise<{ record: AgentRecord; client: AgentClient }>;
  /** A device of this machine. @throws CliError `NO_DEVICE`, `NO_TOKEN`, `OTHER_ORIGIN` */
  device(name: string): Promise<{ record: DeviceRecord; client: RelayClient }>;
};

/** What a session is opened with: what surrounds the command, and the options that all commands have. */
export type SessionOptions = {
  readonly environment: NodeJS.ProcessEnv;
  readonly output: Output;
  readonly interactive: boolean;
  readonly standardInput: () => Promise<Uint8Array>;
  readonly workingFolder: string;
  /** `--agent` */
  readonly agentName: string | undefined;
  /** `--url` */
  readonly url: string | undefined;
  /** `--trust-clock` */
  readonly trustClock: boolean;
  /** The way to an address. @throws CliError where there is none */
  readonly useNetwork: (address: URL) => Network;
};

/** @returns what a command works with; nothing is read or sent before it is asked for */
export function openSession(options: SessionOptions): Session {
  const { environment, output, interactive } = options;
  const home = openHome(environment);
  const givenUrl = options.url ?? environment["SALLYPORT_URL"];

  const baseUrl = async (): Promise<string> => {
    if (givenUrl !== undefined) return parseAddress(givenUrl);
    const stored = (await home.settings.get())?.baseUrl;
    if (stored !== undefined) return stored;
    throw new CliError("NOT_SET_UP", `nothing is set up in ${home.path} yet`, {
      exitCode: EXIT.setup,
      advice: "Run `sallyport init` first, or give --url.",
    });
  };

  const connection = (address: string): ConnectionOptions => {
    return {
      ...options.useNetwork(new URL(address)),
      baseUrl: address,
      trustServerClock: options.trustClock,
      onClockCorrection: (offsetMs) => output.remark(correctionText(offsetMs)),
    };
  };

  const open = async (record: AgentRecord): Promise<{ record: AgentRecord; client: AgentClient }> => {
    const address = addressFor({ what: `the credential of ${record.name}`, baseUrl: record.baseUrl }, givenUrl);
    return { record, client: await openStoredAgent(home, record, connection(address)) };
  };

  const session: Session = {
    home,
    output,
    environment,
    interactive,
    standardInput: options.standardInput,
    workingFolder: options.workingFolder,
    givenUrl,
    connection,
    baseUrl,

    async operator() {
      const operator = await home.operatorToken();
      if (operator === null) {
        throw new CliError("NO_OPERATOR_TOKEN", "this needs the operator token, and there is none here", {
          exitCode: EXIT.setup,
          advice: "Run `sallyport init --operator-token-file FILE`, or set SALLYPORT_OPERATOR_TOKEN.",
        });
      }
      const { token, baseUrl: givenFor } = operator;
      const address = await baseUrl();
      if (givenFor !== null) addressFor({ what: "the operator token", baseUrl: givenFor }, address);
      return createOperatorClient({ ...connection(address), token });
    },

    agentRecord: async () =>
      home.agents.known(await chosenAgentName(home, options.agentName ?? environment["SALLYPORT_AGENT"])),
    agent: async () => open(await session.agentRecord()),
    named: async (name) => open(await home.agents.known(name)),
    device: async (name) => {
      const record = await home.devices.known(name);
      return { record, client: createDeviceClient(await deviceOptions(session, record)) };
    },
  };
  return session;
}

/** @throws CliError `NO_TOKEN` when it has not been claimed, `OTHER_ORIGIN` */
export async function deviceOptions(session: Session, record: DeviceRecord): Promise<DeviceClientOptions> {
  const { name, agentDid, token } = record;
  if (token === null) {
    throw new CliError("NO_TOKEN", `the device ${name} has no token yet`, {
      exitCode: EXIT.setup,
      advice: `Once it is approved: \`sallyport device claim ${name}\`.`,
    });
  }
  const baseUrl = deviceAddress(record, session.givenUrl);
  return { ...session.connection(baseUrl), keys: await importKeys(record.keys), agentDid, token };
}

function correctionText(offsetMs: number): string {
  const seconds = Math.round(Math.abs(offsetMs) / 1_000);
  return `this machine's clock is ${seconds} s ${offsetMs >= 0 ? "behind" : "ahead of"} the server's, whose time is used: set it (NTP)`;
}

/** @returns where a device's key and token are used in this run. @throws CliError `OTHER_ORIGIN` */
export function deviceAddress({ name, baseUrl }: DeviceRecord, givenUrl: string | undefined): string {
  return addressFor({ what: `the key of the device ${name}`, baseUrl }, givenUrl);
}
