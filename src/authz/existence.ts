/** Whether what an operator names is there at all: a name taken on trust would be answered as if it were one without grants. */
import { type SQL, sql } from "drizzle-orm";
import { agents, apiKeys, relationships, tasks, tenantEnforcement } from "../database/schema.ts";
import { readFirst } from "../database/read.ts";
import { query, type Store } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { parseObject, parseSubject, type Tuple, WILDCARD } from "./engine/tuple.ts";

/** Persons are registered nowhere: one without a tuple is one who may do nothing. */
const NOT_REGISTERED: ReadonlySet<string> = new Set(["user"]);

type Named = { member: "object" | "subject" | "tenantId"; type: string; id: string };

/**
 * Makes sure that what a question names is there: as a row, or in some tuple, a contextual one included.
 *
 * @param question texts that have not been validated yet: what is malformed is left to the validation of the question
 * @throws ProxyError PROXY_NOT_FOUND naming the member; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function assertExisting(
  store: Store,
  question: { object?: string; subject?: string; contextualTuples?: readonly Tuple[] | undefined },
): Promise<void> {
  const hypothetical = new Set(
    (question.contextualTuples ?? []).flatMap(({ object, subject }) => [object, nameOf(subject)]),
  );
  const named = namedIn(question).filter(({ type, id }) => !hypothetical.has(`${type}:${id}`));
  await assertAll(store, named);
}

/**
 * The same for a tenant.
 *
 * @throws ProxyError PROXY_NOT_FOUND; PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails
 */
export async function assertTenantExists(store: Store, tenantId: string): Promise<void> {
  await assertAll(store, [{ member: "tenantId", type: "tenant", id: tenantId }]);
}

async function assertAll(store: Store, named: readonly Named[]): Promise<void> {
  if (named.length === 0) return;
  const flags = named.map(({ type, id }, at) => sql`${exists(type, id)} AS ${sql.identifier(`at${at}`)}`);
  const row = await readFirst(store, query.all<Record<string, 0 | 1>>(sql`SELECT ${sql.join(flags, sql`, `)}`));
  for (const [at, { member, type, id }] of named.entries()) {
    if (row?.[`at${at}`] === 1) continue;
    const shown = member === "tenantId" ? id : `${type}:${id}`;
    throw new ProxyError("PROXY_NOT_FOUND", { detail: `${member}: there is no ${shown}.`.slice(0, 300) });
  }
}

function namedIn({ object, subject }: { object?: string; subject?: string }): Named[] {
  const named: Named[] = [];
  const asObject = object === undefined ? null : parseObject(object);
  if (asObject?.ok === true) named.push({ member: "object", ...asObject.value });
  const asSubject = subject === undefined ? null : parseSubject(subject);
  if (asSubject?.ok === true && asSubject.value.id !== WILDCARD) {
    named.push({ member: "subject", type: asSubject.value.type, id: asSubject.value.id });
  }
  return named.filter(({ type }) => !NOT_REGISTERED.has(type));
}

/** `type:id` of a subject, a userset's too. */
function nameOf(subject: string): string {
  const hash = subject.indexOf("#");
  return hash < 0 ? subject : subject.slice(0, hash);
}

function exists(type: string, id: string): SQL {
  const { objectType, objectId, subjectType, subjectId } = relationships;
  const rows: Readonly<Record<string, SQL[]>> = {
    agent: [sql`SELECT 1 FROM ${agents} WHERE ${agents.agentDid} = ${id}`],
    task: [sql`SELECT 1 FROM ${tasks} WHERE ${tasks.taskId} = ${id}`],
    service_account: [sql`SELECT 1 FROM ${apiKeys} WHERE ${apiKeys.serviceAccountId} = ${id}`],
    tenant: [
      sql`SELECT 1 FROM ${tenantEnforcement} WHERE ${tenantEnforcement.tenantId} = ${id}`,
      sql`SELECT 1 FROM ${tasks} WHERE ${tasks.tenantId} = ${id}`,
      sql`SELECT 1 FROM ${apiKeys} WHERE ${apiKeys.tenantId} = ${id}`,
      sql`SELECT 1 FROM ${agents} WHERE ${agents.tenantId} = ${id}`,
    ],
  };
  const found = [
    sql`SELECT 1 FROM ${relationships} WHERE ${objectType} = ${type} AND ${objectId} = ${id}`,
    sql`SELECT 1 FROM ${relationships} WHERE ${subjectType} = ${type} AND ${subjectId} = ${id}`,
    ...(rows[type] ?? []),
  ];
  return sql`(${sql.join(
    found.map((select) => sql`EXISTS (${select})`),
    sql` OR `,
  )})`;
}
