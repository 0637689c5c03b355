/** Where the command keeps what it needs between two runs: settings, the operator token, a file an agent and a device. */
import { homedir } from "node:os";
import { join } from "node:path";
import * as z from "zod/mini";
import { type AgentFiles, type NewKeyFiles, openAgentFiles, openNewKeyFiles } from "./agent-files.ts";
import { CliError, EXIT } from "../terminal/errors.ts";
import { type DeviceFiles, openDeviceFiles } from "./device-files.ts";
import { openValueFile, type ValueFile } from "./record-files.ts";
import { storedAddress } from "./stored-address.ts";

const settingsSchema = z.object({
  /** As `init` was given it: an address that was given for one run is never stored here. */
  baseUrl: z.optional(storedAddress),
  /** How the user introduces themselves when pairing. */
  humanName: z.optional(z.string()),
  /** Which agent acts when none is named. */
  defaultAgent: z.optional(z.string()),
});

const operatorSchema = z.object({
  token: z.string().check(z.minLength(1)),
  /** The address that the token was given for; missing in files of an earlier version. */
  baseUrl: z.optional(storedAddress),
});

const ADVICE = "Correct it, or restore it from a copy. Otherwise move it away, and run `sallyport init`.";

/** What `init` and `agent use` have set. */
export type Settings = z.infer<typeof settingsSchema>;

/** The operator's token; `baseUrl` is what it was given for, null where it was given for this run alone. */
export type OperatorToken = { readonly token: string; readonly baseUrl: string | null };

/** Everything that this machine keeps. */
export type Home = {
  readonly path: string;
  readonly settings: ValueFile<Settings>;
  readonly agents: AgentFiles;
  /** Keys whose registration is not confirmed: on disk before the server gets the public half. */
  readonly newKeys: NewKeyFiles;
  readonly devices: DeviceFiles;
  /** The operator's token, or null where this machine has none. */
  operatorToken(): Promise<OperatorToken | null>;
  /** Keeps a token, and the address that it was given for. */
  writeOperatorToken(token: string, baseUrl: string): Promise<void>;
  /** Binds a token of an earlier version to the stored address, before that becomes another. */
  bindOperatorToken(): Promise<void>;
  /** Binds everything that was given for one origin to another address: the installation has moved there. */
  moveTo(from: string, baseUrl: string): Promise<void>;
};

/**
 * @param environment `SALLYPORT_HOME` instead of `~/.sallyport`; `SALLYPORT_OPERATOR_TOKEN` instead of the stored token
 */
export function openHome(environment: NodeJS.ProcessEnv): Home {
  const given = environment["SALLYPORT_HOME"];
  const path = given === undefined || given === "" ? join(homedir(), ".sallyport") : given;
  const settings = openValueFile(path, "settings.json", settingsSchema, ADVICE);
  const operator = openValueFile(path, "operator.json", operatorSchema, ADVICE);
  const agents = openAgentFiles(path);
  const devices = openDeviceFiles(path);

  return {
    path,
    settings,
    agents,
    newKeys: openNewKeyFiles(path),
    devices,

    async operatorToken() {
      const fromEnvironment = environment["SALLYPORT_OPERATOR_TOKEN"];
      if (fromEnvironment !== undefined && fromEnvironment !== "") return { token: fromEnvironment, baseUrl: null };
      const stored = await operator.get();
      if (stored === null) return null;
      const baseUrl = stored.baseUrl ?? (await settings.get())?.baseUrl;
      if (baseUrl !== undefined) return { token: stored.token, baseUrl };
      throw new CliError("BROKEN_FILE", `${join(path, "operator.json")} does not say what address its token is for`, {
        exitCode: EXIT.setup,
        advice: "Give it again: `sallyport init --url URL --operator-token-file FILE`.",
      });
    },
    async writeOperatorToken(token, baseUrl) {
      await operator.change(() => ({ token, baseUrl }));
    },

    async bindOperatorToken() {
      const baseUrl = (await settings.get())?.baseUrl;
      if (baseUrl !== undefined) await operator.update((stored) => ({ baseUrl, ...stored }));
    },

    async moveTo(from, baseUrl) {
      const moved = <T extends { readonly baseUrl?: string | undefined }>(stored: T): T =>
        stored.baseUrl !== undefined && new URL(stored.baseUrl).origin === from ? { ...stored, baseUrl } : stored;
      for (const name of await agents.names()) await agents.update(name, (stored) => Promise.resolve(moved(stored)));
      for (const name of await devices.names()) await devices.update(name, (stored) => Promise.resolve(moved(stored)));
      await operator.update(moved);
    },
  };
}
