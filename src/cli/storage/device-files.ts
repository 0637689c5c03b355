/** The devices of this machine: a file each, with the device's own key and its token. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod/mini";
import { CliError, EXIT } from "../terminal/errors.ts";
import { readJsonFile, writeJsonFile } from "./json-file.ts";
import { withLock } from "./lock.ts";
import { ensurePrivateFolder, namesIn } from "./private-file.ts";

const FILE_SUFFIX = ".json";
const NAME_PATTERN = /^[A-Za-z0-9._ -]{1,64}$/;
const CURE = "Restore it from a copy, or delete it and pair the device anew: `sallyport device request`.";

const deviceSchema = z.object({
  name: z.string().check(z.regex(NAME_PATTERN)),
  baseUrl: z.string(),
  agentDid: z.string(),
  deviceId: z.string(),
  keys: z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string(), d: z.string() }),
  /** Null until it is claimed, and after it has ended by this machine's own doing. */
  token: z.nullable(z.string()),
  scopes: z.array(z.string()),
  /** When the token expires; null where that is not known. */
  expiresAtMs: z.nullable(z.number()),
});

/** A device of this machine, with its secrets. */
export type DeviceRecord = z.infer<typeof deviceSchema>;

export type DeviceFiles = {
  names(): Promise<string[]>;
  path(name: string): string;
  get(name: string): Promise<DeviceRecord | null>;
  write(record: DeviceRecord): Promise<void>;
  remove(name: string): Promise<void>;
  /** Changes a device's file while no other process of this command does. @throws CliError `NO_DEVICE` */
  update(name: string, change: (stored: DeviceRecord) => Promise<DeviceRecord>): Promise<DeviceRecord>;
};

/** @param home the command's folder */
export function openDeviceFiles(home: string): DeviceFiles {
  const folder = join(home, "devices");
  const path = (name: string): string => join(folder, name + FILE_SUFFIX);
  const files: DeviceFiles = {
    path,
    async names() {
      const names = (await namesIn(folder)).filter((name) => name.endsWith(FILE_SUFFIX) && !name.startsWith("."));
      return names.map((name) => name.slice(0, -FILE_SUFFIX.length));
    },
    get: async (name) => (isDeviceName(name) ? readJsonFile(path(name), deviceSchema, CURE) : null),
    async write(record) {
      await ensurePrivateFolder(home);
      await writeJsonFile(path(record.name), record);
    },
    async remove(name) {
      await rm(path(name), { force: true });
    },
    async update(name, change) {
      await knownDevice(files, name);
      return withLock(join(folder, `.${name}.lock`), async () => {
        const stored = await knownDevice(files, name);
        const changed = await change(stored);
        if (changed !== stored) await files.write(changed);
        return changed;
      });
    },
  };
  return files;
}

/** @returns whether a device of this machine, and so its file, may have this name */
export function isDeviceName(name: string): boolean {
  return NAME_PATTERN.test(name) && !name.startsWith(".");
}

/** @throws CliError `NO_DEVICE` when this machine has none of that name */
export async function knownDevice(files: DeviceFiles, name: string): Promise<DeviceRecord> {
  const record = await files.get(name);
  if (record !== null) return record;
  const names = await files.names();
  throw new CliError("NO_DEVICE", `there is no device ${name} on this machine`, {
    exitCode: EXIT.setup,
    advice: names.length === 0 ? "Ask for one: `sallyport device request NAME`." : `There is: ${names.join(", ")}.`,
  });
}
