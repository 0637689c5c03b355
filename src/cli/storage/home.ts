/** Where the command keeps what it needs between two runs: settings, the operator token, a file an agent and a device. */
import { homedir } from "node:os";
import { join } from "node:path";
import * as z from "zod/mini";
import { type DeviceFiles, openDeviceFiles } from "./device-files.ts";
import { CliError, EXIT } from "../terminal/errors.ts";
import { readJsonFile, writeJsonFile } from "./json-file.ts";
import { withLock } from "./lock.ts";
import { ensurePrivateFolder, namesIn } from "./private-file.ts";

const NAME_PATTERN = /^[A-Za-z0-9._ -]{1,64}$/;
const AGENT_FILE_SUFFIX = ".json";
const CURE = "Restore it from a copy, or delete it: then `sallyport init`, or `sallyport agent rekey` for an agent.";

const settingsSchema = z.object({
  baseUrl: z.string(),
  /** How the user introduces themselves when pairing. */
  humanName: z.optional(z.string()),
  /** Which agent acts when none is named. */
  defaultAgent: z.optional(z.string()),
});

const agentSchema = z.object({
  name: z.string().check(z.regex(NAME_PATTERN)),
  baseUrl: z.string(),
  agentDid: z.string(),
  ownerDid: z.string(),
  keys: z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string(), d: z.string() }),
  ait: z.string(),
  access: z.object({ token: z.string(), expiresAtMs: z.number() }),
  refreshToken: z.string(),
});

const operatorSchema = z.object({ token: z.string().check(z.minLength(1)) });

export type Settings = z.infer<typeof settingsSchema>;
/** An agent of this machine, with its secrets. */
export type AgentRecord = z.infer<typeof agentSchema>;

export type Home = {
  readonly path: string;
  settings(): Promise<Settings | null>;
  writeSettings(settings: Settings): Promise<void>;
  /** The operator's token, or null where this machine has none. */
  operatorToken(): Promise<string | null>;
  writeOperatorToken(token: string): Promise<void>;
  agentNames(): Promise<string[]>;
  agent(name: string): Promise<AgentRecord | null>;
  agentPath(name: string): string;
  writeAgent(record: AgentRecord): Promise<void>;
  /** Changes an agent's file while no other process of this command does. */
  updateAgent(name: string, change: (stored: AgentRecord) => Promise<AgentRecord>): Promise<AgentRecord>;
  readonly devices: DeviceFiles;
};

/**
 * @param environment `SALLYPORT_HOME` instead of `~/.sallyport`; `SALLYPORT_OPERATOR_TOKEN` instead of the stored token
 */
export function openHome(environment: NodeJS.ProcessEnv): Home {
  const given = environment["SALLYPORT_HOME"];
  const path = given === undefined || given === "" ? join(homedir(), ".sallyport") : given;
  const agentsFolder = join(path, "agents");
  const agentPath = (name: string): string => join(agentsFolder, name + AGENT_FILE_SUFFIX);

  const home: Home = {
    path,
    devices: openDeviceFiles(path),
    settings: () => readJsonFile(join(path, "settings.json"), settingsSchema, CURE),
    async writeSettings(settings) {
      await ensurePrivateFolder(path);
      await writeJsonFile(join(path, "settings.json"), settings);
    },

    async operatorToken() {
      const fromEnvironment = environment["SALLYPORT_OPERATOR_TOKEN"];
      if (fromEnvironment !== undefined && fromEnvironment !== "") return fromEnvironment;
      return (await readJsonFile(join(path, "operator.json"), operatorSchema, CURE))?.token ?? null;
    },
    async writeOperatorToken(token) {
      await ensurePrivateFolder(path);
      await writeJsonFile(join(path, "operator.json"), { token });
    },

    async agentNames() {
      const names = (await namesIn(agentsFolder)).filter(
        (name) => name.endsWith(AGENT_FILE_SUFFIX) && !name.startsWith("."),
      );
      return names.map((name) => name.slice(0, -AGENT_FILE_SUFFIX.length));
    },
    agentPath,
    agent: async (name) => (isAgentName(name) ? readJsonFile(agentPath(name), agentSchema, CURE) : null),
    async writeAgent(record) {
      await ensurePrivateFolder(path);
      await writeJsonFile(agentPath(record.name), record);
    },
    async updateAgent(name, change) {
      return withLock(join(agentsFolder, `.${name}.lock`), async () => {
        const stored = await home.agent(name);
        if (stored === null)
          throw new CliError("NO_AGENT", `there is no agent ${name} here any more`, { exitCode: EXIT.setup });
        const changed = await change(stored);
        if (changed !== stored) await home.writeAgent(changed);
        return changed;
      });
    },
  };
  return home;
}

/** @returns whether an agent, and so its file, may have this name */
export function isAgentName(name: string): boolean {
  return NAME_PATTERN.test(name) && !name.startsWith(".");
}
