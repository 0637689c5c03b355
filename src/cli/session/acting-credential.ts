/** By whose credential a command calls methods: the agent's, the operator's, a device's, or a service account's. */
import type { Command } from "commander";
import * as z from "zod/mini";
import {
  type CallMethod,
  type CallText,
  createApiKeyClient,
  JsonText,
  UnexpectedAnswerError,
} from "../../client/index.ts";

import { usage } from "../terminal/errors.ts";
import type { Session } from "./session.ts";

/** The environment variable that holds a service account's key. */
export const API_KEY_VARIABLE = "SALLYPORT_API_KEY";

/** The options by which a caller is chosen. */
export type Acting = { operator?: boolean; device?: string };

/** Adds the options by which a caller is chosen; without one, SALLYPORT_API_KEY where it is set, else the agent. */
export function addActing(command: Command): Command {
  return command
    .option("--operator", "act as the operator")
    .option("--device <name>", "act as a device of this machine that may");
}

/** How the chosen caller calls methods: for values, or for the result's own text. */
export type Methods = { readonly call: CallMethod; readonly callText: CallText };

/** @throws CliError when two callers are chosen, or the one has no credential here */
export async function acting(session: Session, who: Acting): Promise<Methods> {
  if (who.operator === true && who.device !== undefined) throw usage("give --operator or --device, not both");
  if (who.operator === true) return session.operator();
  if (who.device !== undefined) return (await session.device(who.device)).client;
  const key = session.environment[API_KEY_VARIABLE];
  if (key !== undefined && key !== "")
    return createApiKeyClient({ ...session.connection(await session.baseUrl()), key });
  return (await session.agent()).client;
}

/** The DID of an agent: given as such, by its name on this machine, or the agent that acts. */
export async function agentDidOf(session: Session, given: string | undefined): Promise<string> {
  if (given === undefined) return (await session.agentRecord()).agentDid;
  if (given.startsWith("did:")) return given;
  return (await session.named(given)).record.agentDid;
}

/** Reads a result. @throws UnexpectedAnswerError when it is not what the method promises */
export function expected<T>(schema: z.ZodMiniType<T>, result: unknown): T {
  const parsed = schema.safeParse(result);
  if (parsed.success) return parsed.data;
  throw new UnexpectedAnswerError(`the result is not as promised: ${parsed.error.issues[0]?.message ?? ""}`, null);
}

/** @returns JSON that was given as an argument, which keeps its text. @throws CliError naming the option when it is none */
export function jsonGiven(option: string, text: string): JsonText {
  try {
    JSON.parse(text);
    return new JsonText(text.trim());
  } catch (error) {
    if (error instanceof SyntaxError) throw usage(`${option} is no JSON`, error);
    throw error;
  }
}
