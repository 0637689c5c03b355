/** `sallyport apikey …`: keys of service accounts, for what runs without an agent's own key. */
import * as z from "zod/mini";
import {
  type Acting,
  acting,
  addActing,
  agentDidOf,
  API_KEY_VARIABLE,
  expected,
} from "../../session/acting-credential.ts";
import { remarkOnSecret } from "../../devices/token.ts";
import { scopeList } from "../../devices/caller.ts";
import type { Scope } from "../../../client/index.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm, wholeNumber } from "../../session/input.ts";
import { table, timeText } from "../../terminal/output.ts";
import type { Session } from "../../session/session.ts";

const created = z.object({ apiKeyId: z.string(), serviceAccountId: z.string(), key: z.string() });
const listed = z.object({
  apiKeys: z.array(
    z.looseObject({
      apiKeyId: z.string(),
      name: z.string(),
      scopes: z.array(z.string()),
      agentDid: z.string(),
      /** An older installation does not say it. */
      maker: z.optional(z.nullable(z.string())),
      expiresAtMs: z.nullable(z.number()),
      lastUsedAtMs: z.nullable(z.number()),
    }),
  ),
  nextCursor: z.optional(z.string()),
});
const deleted = z.object({
  apiKeyId: z.string(),
  deletedAtMs: z.number(),
  sharedSecretKnown: z.optional(z.literal(true)),
});

type CreateOptions = Acting & { for?: string; scopes: Scope[]; expiresInDays?: number };
type ListOptions = Acting & { for?: string };

const DAY_MS = 86_400_000;

/** Adds `apikey create|list|delete`. */
export const apiKeyFamily: Family = (program, run) => {
  const keys = program.command("apikey").description("keys of service accounts of an agent");

  addActing(keys.command("create").description("make a key; it is shown this once"))
    .argument("<name>", "what it is for")
    .requiredOption("--scopes <scopes>", "separated by commas, e.g. tasks:read,tasks:write", scopeList)
    .option("--for <agent>", "DID, or the name of an agent of this machine; the one that acts otherwise")
    .option("--expires-in-days <n>", "never otherwise", wholeNumber("--expires-in-days", 1, 3_650))
    .action((name: string, options: CreateOptions) => run((session) => create(session, name, options)));

  addActing(keys.command("list").description("the keys of an agent, without the keys themselves"))
    .option("--for <agent>", "DID, or a name on this machine (operator); all of them otherwise")
    .action((options: ListOptions) => run((session) => list(session, options)));

  addActing(keys.command("delete").description("end a key at once"))
    .argument("<id>", "as `apikey list` shows it")
    .option("--yes", "do not ask", false)
    .action((id: string, options: Acting & { yes: boolean }) => run((session) => remove(session, id, options)));
};

async function create(session: Session, name: string, options: CreateOptions): Promise<void> {
  const { call } = await acting(session, options);
  const { scopes, expiresInDays } = options;
  const answer = await call("apikey/create", {
    agentDid: await agentDidOf(session, options.for),
    name,
    scopes,
    ...(expiresInDays === undefined ? {} : { expiresAtMs: Date.now() + expiresInDays * DAY_MS }),
  });
  const made = expected(created, answer);
  await session.output.result(made, made.key);
  session.output.remark(`id ${made.apiKeyId}; it is shown this once. Use it as ${API_KEY_VARIABLE}.`);
}

async function list(session: Session, options: ListOptions): Promise<void> {
  const { call } = await acting(session, options);
  const agentDid = options.for === undefined ? undefined : await agentDidOf(session, options.for);
  const apiKeys: z.infer<typeof listed>["apiKeys"] = [];
  let cursor: string | undefined;
  do {
    const answer = await call("apikey/list", {
      ...(agentDid === undefined ? {} : { agentDid }),
      ...(cursor === undefined ? {} : { cursor }),
    });
    const page = expected(listed, answer);
    apiKeys.push(...page.apiKeys);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  const rows = apiKeys.map((each) => [
    each.apiKeyId,
    each.name,
    each.scopes.join(","),
    orNever(each.expiresAtMs),
    orNever(each.lastUsedAtMs),
    each.agentDid,
    each.maker ?? "-",
  ]);
  const words =
    apiKeys.length === 0
      ? "no keys"
      : table(["ID", "NAME", "SCOPES", "EXPIRES", "LAST USED", "AGENT", "MADE BY"], rows);
  await session.output.result({ apiKeys }, words);
}

async function remove(session: Session, apiKeyId: string, options: Acting & { yes: boolean }): Promise<void> {
  const { call } = await acting(session, options);
  await mustConfirm(session, options.yes, `End the key ${apiKeyId}?`);
  const gone = expected(deleted, await call("apikey/delete", { apiKeyId }));
  await session.output.result(gone, `${apiKeyId} is over, and so is every key that it made`);
  remarkOnSecret(session, gone);
}

const orNever = (ms: number | null): string => (ms === null ? "never" : timeText(ms));
