/** `sallyport authz …`: the relationship graph, for the operator. */
import * as z from "zod/mini";
import { orAdvise } from "../../devices/caller.ts";
import { expected } from "../../session/acting-credential.ts";
import { EXIT, usage } from "../../terminal/errors.ts";
import type { Family } from "../../session/command.ts";

import type { Session } from "../../session/session.ts";

const tuple = z.object({ object: z.string(), relation: z.string(), subject: z.string() });
type Tuple = z.infer<typeof tuple>;
const explained = z.object({ allowed: z.boolean(), path: z.array(z.string()), missing: z.array(z.string()) });
const checked = z.object({ allowed: z.boolean() });
const page = z.object({ tuples: z.array(tuple), nextCursor: z.optional(z.string()) });
const changed = z.object({ written: z.number(), deleted: z.number() });
const report = z.object({
  scanned: z.number(),
  repaired: z.number(),
  removed: z.number(),
  unattributable: z.number(),
  drift: z.number(),
  parked: z.optional(z.number()),
  nextCursor: z.optional(z.string()),
});
const enforced = z.object({ tenantId: z.string(), enforce: z.boolean(), drift: z.number() });
const objectsFound = z.object({ objects: z.array(z.string()) });

const TUPLES_AT_ONCE = 100;
const NOT_THERE =
  "Names are spelled type:id, an agent's agent:DID; `sallyport agent list --all` shows the agents, `sallyport authz read` the tuples.";
const NO_SUCH_TENANT =
  "`sallyport agent register` says an agent's tenant, and `sallyport authz read --object tenant:` shows them all.";

/** Adds `authz check|explain|objects|write|delete|read|reconcile|enforce`. */
export const authzFamily: Family = (program, run) => {
  const authz = program.command("authz").description("who may do what, as tuples object#relation@subject (operator)");

  authz
    .command("check")
    .description("whether a subject has a relation to an object; exit code 4 when not")
    .argument("<subject>", "e.g. agent:did:cdi:…")
    .argument("<relation>", "e.g. read")
    .argument("<object>", "e.g. task:01J…")
    .action((subject: string, relation: string, object: string) =>
      run(async (session) => {
        const { call } = await session.operator();
        const asked = call("authz/check", { subject, relation, object });
        const { allowed } = expected(checked, await orAdvise(asked, NOT_THERE));
        await session.output.result({ allowed }, allowed ? "allowed" : "not allowed");
        return allowed ? EXIT.ok : EXIT.refused;
      }),
    );

  authz
    .command("explain")
    .description("why: the tuples that allowed it, or what was missing")
    .argument("<subject>")
    .argument("<relation>")
    .argument("<object>")
    .action((subject: string, relation: string, object: string) =>
      run((session) => explain(session, { subject, relation, object })),
    );

  authz
    .command("objects")
    .description("every object of a type to which a subject has a relation")
    .argument("<subject>")
    .argument("<relation>")
    .argument("<type>", "e.g. task")
    .action((subject: string, relation: string, type: string) =>
      run(async (session) => {
        const { call } = await session.operator();
        const { objects } = expected(objectsFound, await call("authz/list_objects", { subject, relation, type }));
        await session.output.result({ objects }, objects.length === 0 ? "none" : objects);
      }),
    );

  for (const command of ["write", "delete"] as const) {
    authz
      .command(command)
      .description(`${command} tuples, all of them or none`)
      .argument("<tuples...>", "object#relation@subject")
      .action((texts: string[]) => run((session) => change(session, command, texts)));
  }

  authz
    .command("read")
    .description("stored tuples")
    .option("--object <object>", "type:id, or type: for every object of the type")
    .option("--relation <relation>")
    .option("--subject <subject>")
    .action((filter: Partial<Tuple>) => run((session) => read(session, filter)));

  authz
    .command("reconcile")
    .description("bring rows and tuples together again; without --repair nothing is changed")
    .option("--repair", "do what is due", false)
    .action(({ repair }: { repair: boolean }) => run((session) => reconcile(session, !repair)));

  authz
    .command("enforce")
    .description("let the graph decide for a tenant, or no longer")
    .argument("<tenant>")
    .argument("<on|off>")
    .action((tenantId: string, state: string) =>
      run(async (session) => {
        if (state !== "on" && state !== "off") throw usage("give on or off");
        const { call } = await session.operator();
        const asked = call("authz/enforce", { tenantId, enforce: state === "on" });
        const done = expected(enforced, await orAdvise(asked, NO_SUCH_TENANT));
        await session.output.result(
          done,
          done.enforce ? `the graph decides for ${tenantId}` : `creators and owners decide for ${tenantId}`,
        );
      }),
    );
};

async function explain(
  session: Session,
  question: { subject: string; relation: string; object: string },
): Promise<void> {
  const { call } = await session.operator();
  const why = expected(explained, await orAdvise(call("authz/explain", question), NOT_THERE));
  const lines = why.allowed ? ["allowed, by", ...why.path] : ["not allowed, for", ...why.missing];
  await session.output.result(
    why,
    lines.map((line, index) => (index === 0 ? line : `  ${line}`)),
  );
}

async function change(session: Session, command: "write" | "delete", texts: string[]): Promise<void> {
  if (texts.length > TUPLES_AT_ONCE) throw usage(`at most ${TUPLES_AT_ONCE} tuples at once`);
  const tuples = texts.map(tupleOf);
  const { call } = await session.operator();
  const done = expected(
    changed,
    await call("authz/write", command === "write" ? { writes: tuples } : { deletes: tuples }),
  );
  const words = command === "write" ? `${done.written} written` : `${done.deleted} deleted`;
  await session.output.result(
    done,
    `${words}${tuples.length === done.written + done.deleted ? "" : "; the rest was so already"}`,
  );
}

/** A subject may hold `#`, an id may hold `:` and `@` does not stand in either. */
function tupleOf(text: string): Tuple {
  const match = /^([^#@]+)#([^#@]+)@([^@]+)$/.exec(text);
  const [, object, relation, subject] = match ?? [];
  if (object === undefined || relation === undefined || subject === undefined) {
    throw usage(`${text} is no tuple; write object#relation@subject, e.g. task:1#viewer@user:anne`);
  }
  return { object, relation, subject };
}

async function read(session: Session, { object, relation, subject }: Partial<Tuple>): Promise<void> {
  const { call } = await session.operator();
  const tuples: Tuple[] = [];
  let cursor: string | undefined;
  do {
    const answer = await call("authz/read", {
      ...(object === undefined ? {} : { object }),
      ...(relation === undefined ? {} : { relation }),
      ...(subject === undefined ? {} : { subject }),
      ...(cursor === undefined ? {} : { cursor }),
    });
    const found = expected(page, answer);
    tuples.push(...found.tuples);
    cursor = found.nextCursor;
  } while (cursor !== undefined);
  const words = tuples.map((each) => `${each.object}#${each.relation}@${each.subject}`);
  await session.output.result({ tuples }, tuples.length === 0 ? "no tuples" : words);
}

async function reconcile(session: Session, dryRun: boolean): Promise<void> {
  const { call } = await session.operator();
  const total = { scanned: 0, repaired: 0, removed: 0, unattributable: 0, drift: 0, parked: 0 };
  let cursor: string | undefined;
  do {
    const found = expected(
      report,
      await call("authz/reconcile", { dryRun, ...(cursor === undefined ? {} : { cursor }) }),
    );
    total.scanned += found.scanned;
    total.repaired += found.repaired;
    total.removed += found.removed;
    total.unattributable += found.unattributable;
    total.drift += found.drift;
    total.parked += found.parked ?? 0;
    cursor = found.nextCursor;
  } while (cursor !== undefined);
  const what = dryRun ? ["to repair", "to remove"] : ["repaired", "removed"];
  await session.output.result(
    { dryRun, ...total },
    `${total.scanned} looked at, ${total.repaired} ${what[0]}, ${total.removed} ${what[1]}, ${total.unattributable} whose agent is unknown${total.parked === 0 ? "" : `, ${total.parked} refused by the remote graph`}`,
  );
}
