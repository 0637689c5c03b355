/** `sallyport shared …`: the secret by which others act as the agent's relay client. */
import { type FileHandle, open, rm } from "node:fs/promises";
import { addWho, deviceCaller, type Who } from "../../devices/caller.ts";
import { fencedText } from "../../devices/token.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm } from "../../session/input.ts";
import { hasCode, unwritable } from "../../storage/private-file.ts";
import { usage } from "../../terminal/errors.ts";
import type { Session } from "../../session/session.ts";

/** More than any secret is long. */
const SECRET_ROOM = 512;

type RotateOptions = Who & { yes: boolean; secretFile?: string };

/** Adds `shared rotate`. */
export const sharedFamily: Family = (program, run) => {
  const shared = program.command("shared").description("the agent's shared relay secret");

  addWho(
    shared.command("rotate").description("make the secret, or another one; every holder of the one before is cut off"),
    "agent",
  )
    .option("--secret-file <file>", "write it there, for you alone to read, instead of showing it")
    .option("--yes", "do not ask", false)
    .action((options: RotateOptions) => run((session) => rotate(session, options)));
};

async function rotate(session: Session, options: RotateOptions): Promise<void> {
  const { devices, agentDid } = await deviceCaller(session, options, "agent");
  await mustConfirm(session, options.yes, `Cut off every holder of the shared secret of ${agentDid}?`);
  if (options.secretFile === undefined) {
    const { generation, secret, fenced } = await devices.rotateSharedSecret();
    await session.output.result({ agentDid, generation, secret, fenced }, secret);
    session.output.remark([`generation ${generation}; ${fencedText(fenced)}`, "It is shown this once."]);
    return;
  }
  const { secretFile } = options;
  // Before the secret is made, which is shown once: the file, and its place on the disk.
  const file = await newFile(secretFile);
  let isMade = false;
  try {
    const { generation, secret, fenced } = await devices.rotateSharedSecret();
    isMade = true;
    await file.write(`${secret}\n`, 0);
    await file.truncate(Buffer.byteLength(secret) + 1);
    await file.sync();
    const words = [secretFile, `generation ${generation}; ${fencedText(fenced)}`];
    await session.output.result({ agentDid, generation, fenced, file: secretFile }, words);
  } finally {
    await file.close();
    if (!isMade) await rm(secretFile, { force: true });
  }
}

/** @returns a file that only its owner can read, with room for a secret. @throws CliError when it cannot be made */
async function newFile(path: string): Promise<FileHandle> {
  let file: FileHandle | null = null;
  try {
    file = await open(path, "wx", 0o600);
    await file.write(" ".repeat(SECRET_ROOM));
    await file.sync();
    return file;
  } catch (error) {
    if (file !== null) {
      await file.close();
      await rm(path, { force: true });
    }
    if (hasCode(error, "EEXIST")) throw usage(`there is a file ${path} already`, error);
    if (hasCode(error, "ENOENT") || hasCode(error, "EACCES")) throw usage(`${path} cannot be written`, error);
    throw unwritable(path, error);
  }
}
