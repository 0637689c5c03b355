/** Counts what a method asks of D1, and shows the batches that it writes: the real method over the real D1, without a gate. */
import { env } from "cloudflare:workers";
import { ROOT } from "../../src/authority/operator.ts";
import type { Principal } from "../../src/authority/principal.ts";
import type { CallContext } from "../../src/call/context.ts";
import type { GateLocal } from "../../src/call/gate.ts";
import { fenceStatement } from "../../src/database/fencing.ts";
import { textOf } from "../../src/database/statement.ts";
import { runtimeOf } from "../../src/runtime.ts";
import type { AgentDid, HumanDid } from "../../src/wire/did.ts";
import type { Caller } from "./world.ts";
import { silentLog } from "./silent-log.ts";

export type Watched = {
  db: D1Database;
  /** Statements and batches that went out, in order: their SQL. */
  trips: string[][];
};

/** A database that remembers what it was asked. @param fail the position in a batch at which it breaks, or null */
export function watch(real: D1Database, fail: () => number | null = () => null): Watched {
  const trips: string[][] = [];
  const sqlOf = new WeakMap<D1PreparedStatement, string>();
  const watched = (statement: D1PreparedStatement, sql: string): D1PreparedStatement => {
    const proxy = new Proxy(statement, {
      get(target, name) {
        if (name === "bind") return (...values: unknown[]) => watched(target.bind(...values), sql);
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== "function") return member;
        return (...values: unknown[]) => {
          trips.push([sql]);
          return Reflect.apply(member, target, values) as unknown;
        };
      },
    });
    sqlOf.set(proxy, sql);
    raw.set(proxy, statement);
    return proxy;
  };
  const raw = new WeakMap<D1PreparedStatement, D1PreparedStatement>();
  const batchOn = (target: { batch: D1Database["batch"] }) => (statements: D1PreparedStatement[]) => {
    trips.push(statements.map((each) => sqlOf.get(each) ?? ""));
    const broken = real.prepare("SELECT * FROM no_such_table");
    const at = fail();
    return target.batch(statements.map((each, index) => (index === at ? broken : (raw.get(each) ?? each))));
  };
  const db = new Proxy(real, {
    get(target, name) {
      if (name === "prepare") return (sql: string) => watched(target.prepare(sql), sql);
      if (name === "batch") return batchOn(target);
      if (name === "withSession") {
        return (constraint?: string) => {
          const session = target.withSession(constraint);
          return {
            prepare: (sql: string) => watched(session.prepare(sql), sql),
            batch: batchOn(session),
            getBookmark: () => session.getBookmark(),
          };
        };
      }
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? (member.bind(target) as unknown) : member;
    },
  });
  return { db, trips };
}

export async function principalOf(caller: Caller): Promise<Principal> {
  switch (caller.kind) {
    case "operator":
      return ROOT;
    case "agent": {
      const { did, ownerDid } = caller;
      return {
        kind: "agent",
        agentDid: did as AgentDid,
        ownerDid: ownerDid as HumanDid,
        jti: "j",
        expMs: 9e15,
        keyX: "x",
      };
    }
    case "device": {
      const owner = await env.DB.prepare("SELECT owner_did FROM agents WHERE agent_did = ?1")
        .bind(caller.agentDid)
        .first<HumanDid>("owner_did");
      return {
        kind: "device",
        agentDid: caller.agentDid as AgentDid,
        ownerDid: owner,
        deviceId: caller.deviceId,
        scopes: ["tasks:read", "tasks:write"],
        epoch: 1,
        expMs: 9e15,
      };
    }
    case "apiKey": {
      const row = await env.DB.prepare("SELECT agent_did, tenant_id FROM api_keys WHERE api_key_id = ?1")
        .bind(caller.apiKeyId)
        .first<{ agent_did: AgentDid; tenant_id: string }>();
      return {
        kind: "apiKey",
        agentDid: row?.agent_did ?? ("" as AgentDid),
        apiKeyId: caller.apiKeyId,
        serviceAccountId: caller.serviceAccountId,
        tenantId: row?.tenant_id ?? "",
        scopes: ["tasks:read", "tasks:write", "admin"],
        expMs: null,
        originator: "operator",
        lineage: [],
      };
    }
  }
}

/** The text of a fence. */
export const FENCE = textOf(fenceStatement([]));

/** A call of a caller, in a gate that takes everything and does nothing. */
export async function contextOf(
  caller: Caller,
  db: D1Database,
  around: { ended?: boolean; settings?: Env } = {},
): Promise<CallContext> {
  const principal = await principalOf(caller);
  const settings = around.settings ?? env;
  const agentDid = "agentDid" in principal ? principal.agentDid : null;
  const gate: Partial<GateLocal> = {
    send: () => ({ deliveryId: "d" }),
    audit: () => {},
    announceTask() {},
    isEnded: () => false,
    shared: { generation: () => 0, holds: () => true, sha256: () => null, isKnownTo: () => false, replace: () => 0 },
    apiKeys: {
      generation: () => 0,
      holds: () => true,
      isEnded: () => false,
      end() {},
      gone() {},
      endAll() {},
      prune() {},
    },
    end: async ({ apply }) => ({ applied: apply(), fenced: { sockets: 0, inFlight: 0 } }),
  };
  return {
    env: settings,
    config: runtimeOf(settings).config,
    db,
    principal,
    authority: {
      assertCurrent() {},
      // Epoch 0 is above -1: D1 finds the authority raised.
      fence: () =>
        principal.kind === "operator" ? [] : [{ authority: "agent:of-test", epoch: around.ended === true ? -1 : 0 }],
      revokedItself() {},
    },
    requestId: "test-request",
    origin: null,
    now: Date.now,
    log: silentLog,
    agentDid,
    gates: {
      of: () => {
        throw new Error("no gate is called from here");
      },
    },
    gate: agentDid === null ? null : (gate as GateLocal),
    bookmarks: null,
  };
}

/** How many round trips to D1 a call makes. */
export async function readsOf(caller: Caller, method: string, params: unknown): Promise<number> {
  const { db, trips } = watch(env.DB);
  await runtimeOf(env).dispatcher.dispatch(await contextOf(caller, db), "rpc", method, params);
  return trips.length;
}
