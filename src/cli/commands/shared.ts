/** `sallyport shared …`: the secret by which others act as the agent's relay client. */
import { type FileHandle, open, rm } from "node:fs/promises";
import { addWho, deviceCaller, type Who } from "../devices/caller.ts";
import { fencedText } from "../devices/token.ts";
import type { Family } from "../session/command.ts";
import { mustConfirm } from "../session/input.ts";
import { hasCode } from "../storage/private-file.ts";
import { usage } from "../terminal/errors.ts";
import type { Session } from "../session/session.ts";

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
  // Before the secret is made: there is no second look at it.
  const file = await newFile(options.secretFile);
  try {
    const { generation, secret, fenced } = await devices.rotateSharedSecret();
    await file.writeFile(`${secret}\n`);
    await file.sync();
    await session.output.result({ agentDid, generation, fenced, file: options.secretFile }, [
      options.secretFile,
      `generation ${generation}; ${fencedText(fenced)}`,
    ]);
  } catch (error) {
    await rm(options.secretFile, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

async function newFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "wx", 0o600);
  } catch (error) {
    if (hasCode(error, "EEXIST")) throw usage(`there is a file ${path} already`, error);
    if (hasCode(error, "ENOENT") || hasCode(error, "EACCES")) throw usage(`${path} cannot be written`, error);
    throw error;
  }
}
