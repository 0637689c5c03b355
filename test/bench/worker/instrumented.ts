/**
 * The proxy with counters around its gates' storage and stubs, and with two routes more: `/bench/counts`, and `/bench/chain`,
 * which runs the chain on a send and goes no further. Built for the bench alone.
 */
import proxy, { Gate as PlainGate, Housekeeping as PlainHousekeeping } from "../../../src/worker.ts";
import { HOOK } from "../../../src/auth/form.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { createLog } from "../../../src/telemetry/log.ts";

/** Rows as they are billed, entries of indexes among them. */
type RowCounts = { inserted: number; updated: number; deleted: number };
type Counts = {
  rpcs: Record<string, number>;
  commits: number;
  alarms: number;
  statements: number;
  rows: Record<string, RowCounts>;
};

const WRITES = /^\s*(?:INSERT|UPDATE|DELETE|REPLACE)/i;
const WRITTEN_TABLE = /^\s*(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM|REPLACE INTO)\s+(\w+)/i;
/** How many rows a statement has written is known once its rows have been read. */
let written: { query: string; cursor: { rowsWritten: number } }[] = [];

let counts: Counts = nothing();
/** Storages that have written in this turn of the event loop: all of a turn is one commit. */
const dirty = new Set<SqlStorage>();
const environments = new WeakMap<Env, Env>();

function nothing(): Counts {
  return { rpcs: {}, commits: 0, alarms: 0, statements: 0, rows: {} };
}

/** The bindings with every RPC to a gate counted. The same object for the same environment: the proxy keys its runtime by it. */
function counted(env: Env): Env {
  const known = environments.get(env);
  if (known !== undefined) return known;
  const gates = new Proxy(env.GATE, {
    get(namespace, name) {
      if (name !== "getByName") return Reflect.get(namespace, name);
      return (did: string) =>
        new Proxy(namespace.getByName(did), {
          get(stub, method) {
            const called: unknown = Reflect.get(stub, method);
            if (typeof called !== "function") return called;
            return (...args: unknown[]): unknown => {
              counts.rpcs[String(method)] = (counts.rpcs[String(method)] ?? 0) + 1;
              return Reflect.apply(called, stub, args);
            };
          },
        });
    },
  });
  const wrapped = { ...env, GATE: gates };
  environments.set(env, wrapped);
  environments.set(wrapped, wrapped);
  return wrapped;
}

/** Once an isolate: the platform's own methods, so that nothing of the proxy has to be changed. */
function countStorage(storage: DurableObjectStorage): void {
  const sql = Object.getPrototypeOf(storage.sql) as SqlStorage & { isCounted?: boolean };
  if (sql.isCounted === true) return;
  sql.isCounted = true;
  const exec = Reflect.get(sql, "exec") as (...args: unknown[]) => unknown;
  sql.exec = function count(this: SqlStorage, query: string, ...values: SqlStorageValue[]) {
    const isWrite = WRITES.test(query);
    if (isWrite) {
      counts.statements += 1;
      if (!dirty.has(this)) {
        dirty.add(this);
        counts.commits += 1;
        setTimeout(() => dirty.delete(this), 0);
      }
    }
    const cursor = Reflect.apply(exec, this, [query, ...values]);
    if (isWrite) written.push({ query, cursor: cursor as { rowsWritten: number } });
    return cursor;
  } as SqlStorage["exec"];
  const all = Object.getPrototypeOf(storage) as DurableObjectStorage;
  const plain: { setAlarm: (at: number | Date) => Promise<void> } = { setAlarm: Reflect.get(all, "setAlarm") };
  all.setAlarm = function count(this: DurableObjectStorage, at: number | Date) {
    counts.alarms += 1;
    return Reflect.apply(plain.setAlarm, this, [at]);
  };
}

function countRows(): void {
  for (const { query, cursor } of written) {
    const table = WRITTEN_TABLE.exec(query)?.[1] ?? "others";
    const of = (counts.rows[table] ??= { inserted: 0, updated: 0, deleted: 0 });
    const kind = /^\s*DELETE/i.test(query) ? "deleted" : /^\s*UPDATE/i.test(query) ? "updated" : "inserted";
    of[kind] += cursor.rowsWritten;
  }
  written = [];
}

export class Gate extends PlainGate {
  constructor(ctx: DurableObjectState, env: Env) {
    countStorage(ctx.storage);
    super(ctx, counted(env));
  }
}

export class Housekeeping extends PlainHousekeeping {}

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const path = new URL(request.url).pathname;
    if (path === "/bench/counts") {
      countRows();
      const answer = Response.json(counts);
      counts = nothing();
      return answer;
    }
    if (path !== "/bench/chain") return proxy.fetch(request as Parameters<typeof proxy.fetch>[0], counted(env), ctx);
    const { chain } = runtimeOf(counted(env));
    const background = (work: Promise<unknown>): void => ctx.waitUntil(work);
    const scope = { now: Date.now, address: null, log: createLog(), background };
    const passed = await chain.authenticate(request, HOOK, scope);
    if (!passed.ok) return new Response(passed.error.code, { status: passed.error.status });
    chain.conclude(passed.value, null, scope);
    return Response.json({ accepted: true }, { status: 202 });
  },
};
