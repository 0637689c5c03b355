/** What a connector keeps on this machine: a folder an agent, in the command's home. */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { decodeBase64Url, encodeBase64Url } from "../../wire/base64url.ts";
import { tryLock } from "../storage/lock.ts";
import { ensurePrivateFolder, readPrivateFile, writePrivateFile } from "../storage/private-file.ts";
import { CliError, EXIT } from "../terminal/errors.ts";

const SECRET_BYTES = 32;

/** The files of one agent's connector. */
export type ConnectFiles = {
  readonly folder: string;
  readonly inbox: string;
  readonly outbox: string;
  readonly keyFile: string;
  readonly tokenFile: string;
  /** The key that requests to the program are signed with; made where there is none. */
  key(): Promise<Uint8Array>;
  /** The token that local programs call with; made where there is none. */
  token(): Promise<string>;
  /** Where the running connector listens, or null where none has said so. */
  address(): Promise<{ port: number; pid: number } | null>;
  writeAddress(address: { port: number; pid: number }): Promise<void>;
  /** This agent's connector is this process until it ends. @throws CliError `CONNECTED` */
  claim(): Promise<void>;
};

/** @param home the command's folder @param agent its name */
export function connectFiles(home: string, agent: string): ConnectFiles {
  const folder = join(home, "connect", agent);
  const path = (name: string): string => join(folder, name);
  const ready = async (): Promise<void> => {
    await ensurePrivateFolder(home);
    await ensurePrivateFolder(join(home, "connect"));
    await ensurePrivateFolder(folder);
  };
  const secret = async (name: string): Promise<string> => {
    await ready();
    const stored = (await readPrivateFile(path(name)))?.trim();
    if (stored !== undefined && decodeBase64Url(stored)?.length === SECRET_BYTES) return stored;
    const made = encodeBase64Url(randomBytes(SECRET_BYTES));
    await writePrivateFile(path(name), `${made}\n`);
    return made;
  };
  return {
    folder,
    inbox: path("inbox.sqlite"),
    outbox: path("outbox.sqlite"),
    keyFile: path("key"),
    tokenFile: path("token"),
    key: async () => decodeBase64Url(await secret("key")) ?? new Uint8Array(),
    token: () => secret("token"),
    async address() {
      const text = await readPrivateFile(path("address.json"));
      if (text === null) return null;
      try {
        return JSON.parse(text) as { port: number; pid: number };
      } catch (error) {
        if (error instanceof SyntaxError) return null;
        throw error;
      }
    },
    async writeAddress(address) {
      await ready();
      await writePrivateFile(path("address.json"), `${JSON.stringify(address)}\n`);
    },
    async claim() {
      await ready();
      await mkdir(join(home, "locks"), { recursive: true, mode: 0o700 });
      if (tryLock(join(home, "locks", `connect.${agent}.lock`)) !== null) return;
      throw new CliError("CONNECTED", `${agent} has a connector on this machine already`, {
        exitCode: EXIT.setup,
        advice: "`sallyport connect status` shows it. An agent listens in one place at a time.",
      });
    },
  };
}
