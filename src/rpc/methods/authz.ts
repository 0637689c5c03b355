/** The methods of contract §5, Relationships: the operator's. They read and write the graph in D1, also beside a remote one. */
import * as z from "zod/mini";
import { auditStatement } from "../../audit/entry.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { ProxyError } from "../../wire/problem.ts";
import { commitWrite, type DualWrite, dualWrite, pushToRemote } from "../../authz/sync/dual-write.ts";
import { outboxStatements } from "../../authz/sync/outbox.ts";
import { remoteGraphOf } from "../../authz/sync/remote.ts";
import type { CallContext } from "../../call/context.ts";
import { setEnforcement } from "../../authz/enforcement.ts";
import { createBudget, OPERATOR_LIMITS } from "../../authz/store/budget.ts";
import { assertExisting } from "../../authz/existence.ts";
import { graphUnavailable, unanswered } from "../../authz/permission.ts";
import { sallyportGraph } from "../../authz/store/graph.ts";
import { validateTuple } from "../../authz/engine/model.ts";
import { noteBookmark, readSession } from "../../database/session.ts";
import { noteDrift, parseReconcileCursor, reconcile } from "../../authz/sync/reconcile.ts";
import { SALLYPORT_MODEL } from "../../authz/store/sallyport-model.ts";
import { restoreStatements, withdrawStatement } from "../../authz/sync/withdrawn-grants.ts";
import { formatTuple, parseTuple, type Tuple } from "../../authz/engine/tuple.ts";
import { withoutExpiry } from "../../authz/store/expiries.ts";
import { deleteTuples, readTuples, writeTuples } from "../../authz/store/tuples.ts";

/** Writes and deletes of one call together. */
const TUPLES_MAX = 100;
const PAGE_MAX = 100;
/** Objects that one answer of a list holds. */
const OBJECTS_MAX = 20_000;

const part = z.string().check(z.minLength(1), z.maxLength(600));
const tuple = z.object({ object: part, relation: part, subject: part });
const tuples = z.array(tuple).check(z.maxLength(TUPLES_MAX));
const count = z.int().check(z.nonnegative());
const check = z.object({
  subject: part,
  relation: part,
  object: part,
  contextualTuples: z.optional(tuples),
});

const write = defineMethod({
  name: "authz/write",
  surface: "rpc",
  permission: PERMISSIONS["authz/write"],
  params: z.object({ writes: z.optional(tuples), deletes: z.optional(tuples) }),
  result: z.object({ written: count, deleted: count }),
  handler: async (ctx, { writes = [], deletes = [] }) => {
    if (writes.length + deletes.length > TUPLES_MAX) throw invalid(`at most ${TUPLES_MAX} tuples in one call`);
    for (const each of writes) mustBe(each, validateTuple(SALLYPORT_MODEL, each));
    for (const each of deletes) mustBe(each, parseTuple(each));
    // Deletes first: so an object can move to another tenant in one call.
    const removal = deleteTuples(deletes);
    const written = writeTuples(writes, { nowMs: ctx.now() });
    const passedOn = [tupleChanges(ctx, "deregister", deletes), tupleChanges(ctx, "register", writes)];
    const committed = await commitWrite(
      ctx,
      [
        withdrawStatement(deletes, ctx.now()),
        ...removal,
        ...written,
        ...restoreStatements(writes),
        auditStatement(ctx, {
          action: "authz.write",
          subject: null,
          agentDid: null,
          result: "ok",
          details: { writes: listed(writes), deletes: listed(deletes) },
        }),
        withoutExpiry([...writes, ...deletes]),
        ...passedOn.flatMap(({ changes }) => outboxStatements(changes, ctx.now())),
      ],
      null,
    );
    if (!committed.ok) throw new ProxyError("PROXY_CONFLICT", { detail: "writes: an object stands in one tenant." });
    await passOn(ctx, passedOn);
    const changes = committed.value.slice(1, 1 + removal.length + written.length).map(({ meta }) => meta.changes);
    return { deleted: sum(changes.slice(0, removal.length)), written: sum(changes.slice(removal.length)) };
  },
});

/** What an engine is told of tuples that are written by hand; nothing where the graph is D1's own, or a service's. */
function tupleChanges(ctx: CallContext, op: "register" | "deregister", written: readonly Tuple[]): DualWrite {
  if (remoteGraphOf(ctx.config)?.checkMany == null) return { op, changes: [] };
  const changes = written.map(({ object, relation, subject }) => ({
    object,
    principal: subject,
    relation,
    parent: null,
  }));
  return dualWrite(
    ctx,
    op,
    changes.map((change) => ({ ...change, tenantId: "" })),
  );
}

/** Sends what was committed, removals first. @throws ProxyError AUTHZ_UNAVAILABLE; the outbox has the rest */
async function passOn(ctx: CallContext, passedOn: readonly DualWrite[]): Promise<void> {
  for (const dual of passedOn) {
    // oxlint-disable-next-line no-await-in-loop -- removals before grants
    const failed = await pushToRemote(ctx, dual);
    if (failed !== null) throw graphUnavailable(`the remote graph: ${failed}`);
  }
}

const readTuplesMethod = defineMethod({
  name: "authz/read",
  surface: "rpc",
  permission: PERMISSIONS["authz/read"],
  params: z.object({
    object: z.optional(part),
    relation: z.optional(part),
    subject: z.optional(part),
    cursor: z.optional(z.string().check(z.maxLength(4_096))),
  }),
  result: z.object({ tuples: z.array(tuple), nextCursor: z.optional(z.string()) }),
  handler: async (ctx, { object, relation, subject, cursor }) => {
    const session = readSession(ctx);
    const filter = {
      ...(object === undefined ? {} : { object }),
      ...(relation === undefined ? {} : { relation }),
      ...(subject === undefined ? {} : { subject }),
    };
    const page = await readTuples(session, filter, { limit: PAGE_MAX, ...(cursor === undefined ? {} : { cursor }) });
    if (!page.ok) throw invalid(page.error);
    noteBookmark(ctx, session);
    return page.value;
  },
});

const checkMethod = defineMethod({
  name: "authz/check",
  surface: "rpc",
  permission: PERMISSIONS["authz/check"],
  params: check,
  result: z.object({ allowed: z.boolean() }),
  handler: async (ctx, question) => {
    const checked = await sallyportGraph.check(ctx.db, questionOf(question));
    if (!checked.ok) throw unanswered(checked.error);
    if (!checked.value) await assertExisting(ctx.db.withSession("first-primary"), questionOf(question));
    return { allowed: checked.value };
  },
});

const explain = defineMethod({
  name: "authz/explain",
  surface: "rpc",
  permission: PERMISSIONS["authz/explain"],
  params: check,
  result: z.object({ allowed: z.boolean(), path: z.array(z.string()), missing: z.array(z.string()) }),
  handler: async (ctx, question) => {
    const explained = await sallyportGraph.explain(ctx.db, questionOf(question));
    if (!explained.ok) throw unanswered(explained.error);
    const { allowed, path, missing } = explained.value;
    if (!allowed) await assertExisting(ctx.db.withSession("first-primary"), questionOf(question));
    return { allowed, path: [...path], missing: [...missing] };
  },
});

const listObjects = defineMethod({
  name: "authz/list_objects",
  surface: "rpc",
  permission: PERMISSIONS["authz/list_objects"],
  params: z.object({ subject: part, relation: part, type: part, contextualTuples: z.optional(tuples) }),
  result: z.object({ objects: z.array(z.string()) }),
  handler: async (ctx, { subject, relation, type, contextualTuples }) => {
    const session = readSession(ctx);
    const question = { subject, relation, type, ...(contextualTuples === undefined ? {} : { contextualTuples }) };
    const budget = createBudget(OPERATOR_LIMITS);
    const objects: string[] = [];
    let cursor: string | undefined;
    do {
      // oxlint-disable-next-line no-await-in-loop -- page after page
      const page = await sallyportGraph.listObjects(session, question, {
        budget,
        ...(cursor === undefined ? {} : { cursor }),
      });
      if (!page.ok) throw unanswered(page.error);
      objects.push(...page.value.objects);
      cursor = page.value.nextCursor;
    } while (cursor !== undefined && objects.length < OBJECTS_MAX);
    if (objects.length === 0) await assertExisting(session, { subject, contextualTuples });
    if (cursor !== undefined) throw invalid(`there are more than ${OBJECTS_MAX}`);
    noteBookmark(ctx, session);
    return { objects };
  },
});

const reconcileMethod = defineMethod({
  name: "authz/reconcile",
  surface: "rpc",
  permission: PERMISSIONS["authz/reconcile"],
  params: z.object({ dryRun: z.optional(z.boolean()), cursor: z.optional(z.string().check(z.maxLength(600))) }),
  result: z.object({
    scanned: count,
    repaired: count,
    removed: count,
    unattributable: count,
    drift: count,
    parked: z.optional(count),
    nextCursor: z.optional(z.string()),
  }),
  // Without `dryRun` nothing is changed.
  handler: async (ctx, { dryRun = true, cursor }) => {
    if (cursor !== undefined && parseReconcileCursor(cursor) === null)
      throw invalid("cursor: is none of a reconciliation");
    const report = await reconcile(ctx, {
      dryRun,
      cursor: cursor ?? null,
      graceMs: 0,
      tenants: { tasks: null, keys: null },
    });
    if (cursor === undefined && report.nextCursor === undefined) noteDrift(ctx, report.drift);
    return report;
  },
});

const enforce = defineMethod({
  name: "authz/enforce",
  surface: "rpc",
  permission: PERMISSIONS["authz/enforce"],
  params: z.object({ tenantId: z.string().check(z.regex(/^[A-Za-z0-9._-]{1,128}$/)), enforce: z.boolean() }),
  result: z.object({ tenantId: z.string(), enforce: z.boolean(), drift: count }),
  handler: (ctx, params) => setEnforcement(ctx, params),
});

export const authzMethods: readonly Method[] = [
  write,
  readTuplesMethod,
  checkMethod,
  explain,
  listObjects,
  reconcileMethod,
  enforce,
];

function questionOf({ contextualTuples, ...question }: z.infer<typeof check>) {
  return contextualTuples === undefined ? question : { ...question, contextualTuples };
}

function mustBe(each: Tuple, valid: { ok: true } | { ok: false; error: string }): void {
  if (!valid.ok) throw invalid(`${formatTuple(each)}: ${valid.error}`);
}

function invalid(detail: string): ProxyError {
  return new ProxyError("PROXY_BAD_REQUEST", { detail: detail.slice(0, 300) });
}

/** Tuples for the audit, each of them: none holds white space. */
function listed(tuplesOf: readonly Tuple[]): string {
  return tuplesOf.map(formatTuple).join(" ");
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
