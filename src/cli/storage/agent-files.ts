/** The agents of this machine: a file each, with the agent's key and tokens; and the keys that are not an agent's yet. */
import * as z from "zod/mini";
import { CliError, EXIT } from "../terminal/errors.ts";
import { NAME_PATTERN, openRecordFiles, type RecordFiles } from "./record-files.ts";
import { storedAddress } from "./stored-address.ts";

const keysSchema = z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string(), d: z.string() });

const agentSchema = z.object({
  name: z.string().check(z.regex(NAME_PATTERN)),
  baseUrl: storedAddress,
  agentDid: z.string(),
  ownerDid: z.string(),
  keys: keysSchema,
  ait: z.string(),
  access: z.object({ token: z.string(), expiresAtMs: z.number() }),
  refreshToken: z.string(),
});

const newKeySchema = z.object({ name: z.string().check(z.regex(NAME_PATTERN)), keys: keysSchema });

/** An agent of this machine, with its secrets. */
export type AgentRecord = z.infer<typeof agentSchema>;
/** The agents of this machine. */
export type AgentFiles = RecordFiles<AgentRecord>;

/** A key pair that was made for an agent's name; the server may know it already. */
export type NewKeyRecord = z.infer<typeof newKeySchema>;
/** The keys of this machine whose registration is not confirmed. */
export type NewKeyFiles = RecordFiles<NewKeyRecord>;

/** @param home the command's folder */
export function openAgentFiles(home: string): AgentFiles {
  return openRecordFiles(home, {
    folder: "agents",
    schema: agentSchema,
    advice:
      "Correct it, or restore it from a copy; the key in it may still be good. Otherwise move it away, and ask the operator for `sallyport agent rekey NAME --did DID`.",
    missing: (name, names) =>
      new CliError("NO_AGENT", `there is no agent ${name} here`, {
        exitCode: EXIT.setup,
        advice:
          names.length === 0 ? "Register one: `sallyport agent register NAME`." : `There is: ${names.join(", ")}.`,
      }),
  });
}

/** @param home the command's folder */
export function openNewKeyFiles(home: string): NewKeyFiles {
  return openRecordFiles(home, {
    folder: "new-keys",
    schema: newKeySchema,
    advice:
      "Correct it, or move it away to have another key made. The server may know this one: then it is needed for `sallyport agent rekey`.",
    missing: (name) => new CliError("NO_KEY", `there is no new key for ${name} here`, { exitCode: EXIT.setup }),
  });
}
