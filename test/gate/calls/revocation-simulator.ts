/**
 * A gate in a world where nothing happens by itself: its clock, its timers, D1, slow handlers and other parties move only when
 * a history says so. Rooms, relay, runner and dispatcher are the real ones on real storage; D1 and the sockets are played.
 */
import { env } from "cloudflare:workers";
import { vi } from "vitest";
import * as z from "zod/mini";
import { type OperatorPrincipal, ROOT } from "../../../src/authority/operator.ts";
import { scopesOf } from "../../../src/authority/principal.ts";
import { makerOf } from "../../../src/apikeys/lineage.ts";
import { lineageTokens } from "../../../src/authority/lineage.ts";
import { apiKeyAuthority, ENDED_EPOCH, issuedAuthority } from "../../../src/authority/names.ts";
import type { ApiKeyGrant, AuthorityRef } from "../../../src/authority/reference.ts";
import { hashSecret } from "../../../src/authority/secrets.ts";
import { admitApiKey } from "../../../src/gate/admission/api-key.ts";
import type { Scope } from "../../../src/authority/scopes.ts";
import type { Reply } from "../../../src/call/reply.ts";
import { parseConfig } from "../../../src/config.ts";
import { admitAgent } from "../../../src/gate/admission/agent.ts";
import { claimDeviceToken } from "../../../src/gate/admission/device-claim.ts";
import { admitDeviceToken } from "../../../src/gate/admission/device-token.ts";
import { admitShared } from "../../../src/gate/admission/shared-secret.ts";
import { createCalls } from "../../../src/gate/calls/in-flight.ts";
import { createOperations } from "../../../src/gate/calls/operations.ts";
import { createRevocation } from "../../../src/gate/calls/revocation.ts";
import { createRunner } from "../../../src/gate/calls/runner.ts";
import { GateRefusal } from "../../../src/gate/protocol/refusal.ts";
import type { AgentAdmission } from "../../../src/gate/protocol/submission.ts";
import { createRelay } from "../../../src/gate/relay/relay.ts";
import { createGroupCommit } from "../../../src/gate/storage/group-commit.ts";
import { createGateStores } from "../../../src/gate/stores.ts";
import { migrate } from "../../../src/gate/storage/schema.ts";
import { fenceStatement } from "../../../src/database/fencing.ts";
import { bind } from "../../../src/database/statement.ts";
import { createDispatcher } from "../../../src/rpc/dispatcher.ts";
import { defineMethod } from "../../../src/rpc/method.ts";
import { deviceMethods } from "../../../src/rpc/methods/devices.ts";
import type { AgentDid, HumanDid } from "../../../src/wire/did.ts";
import { ProxyError } from "../../../src/wire/problem.ts";
import { createLockout } from "../../../src/auth/limits/lockout.ts";
import type { ProofForm } from "../../../src/auth/proof.ts";
import { sha256Base64Url } from "../../../src/wire/proof.ts";
import { createIntake } from "../../../src/gate/queue/intake.ts";
import type { Event } from "./revocation-checker.ts";
import { createSimulatedGroup, GROUP } from "./simulated-group.ts";
import { createSimulatedOperators } from "./simulated-operators.ts";
import { subjectOf } from "../../../src/audit/entry.ts";
import { isOperatorInForce } from "../../../src/operators/store.ts";
import { operatorMethods } from "../../../src/rpc/methods/operators.ts";
import { silentLog } from "../../support/silent-log.ts";

export const SELF = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000000" as AgentDid;
const PEER = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000001" as AgentDid;
const OWNER = "did:cdi:registry.sallyport.example:human:01K00000000000000000000002" as HumanDid;
export const START_MS = Date.UTC(2040, 0, 1, 12);
const YEAR_MS = 365 * 86_400_000;

/** What is taken out of the gate, to see that the checker notices. */
export type Weakness =
  /** Nothing is compared with the authority at that moment. */
  | "no-look"
  /** D1 takes every batch, and nobody waits for calls in flight. */
  | "no-fence-in-d1"
  /** An end forgets what it wrote when the process dies. */
  | "no-disk"
  /** Who goes from a group is taken off its list, and no gate is notified. */
  | "no-group-fence"
  /** A key does not know what it descends from. */
  | "no-lineage"
  /** Whoever asks whether an operator's key holds is told that it does. */
  | "no-operator-end";

export type Credential = {
  id: string;
  targets: readonly string[];
  /** The credential that it carries the authority of: a ticket its issuer. */
  maker?: string;
} & (
  | { kind: "agent"; jti: string }
  | { kind: "device"; deviceId: string; tokenHash: string }
  | { kind: "shared"; secretHash: string }
  | { kind: "apiKey"; grant: ApiKeyGrant }
  | { kind: "ticket"; sha256: string }
  | { kind: "operator"; operatorId: string }
  | { kind: "invite"; inviteId: string }
);

type Task = { life: number; survives: boolean; run: (fails: boolean) => void };
type Statement = {
  sql: string;
  args: unknown[];
  bind: (...args: unknown[]) => Statement;
  all: () => Promise<{ results: Record<string, unknown>[] }>;
};
type Asked = { credential: string | null; settle: (reply: Reply) => void };

class PlayedSocket {
  readyState: number = WebSocket.OPEN;
  attachment: unknown = null;
  readonly credential: string;
  readonly hears: (socket: PlayedSocket, text: string) => void;
  readonly ends: (socket: PlayedSocket, code: number) => void;
  constructor(credential: string, hears: PlayedSocket["hears"], ends: PlayedSocket["ends"]) {
    this.credential = credential;
    this.hears = hears;
    this.ends = ends;
  }
  send(text: string): void {
    this.hears(this, text);
  }
  close(code: number): void {
    this.readyState = WebSocket.CLOSING;
    this.ends(this, code);
  }
  serializeAttachment(value: unknown): void {
    this.attachment = structuredClone(value);
  }
  deserializeAttachment(): unknown {
    return structuredClone(this.attachment);
  }
}

const config = (() => {
  const parsed = parseConfig({ ...env, RATE_LIMIT_PER_AGENT: "0" });
  if (!parsed.ok) throw new Error("bad settings");
  return parsed.value;
})();

const ENDED_REASONS = ["gate-credential-refused", "gate-client-invalidated", "gate-agent-revoked"];
const ENDED_CODES = ["PROXY_AUTH_REVOKED", "PROXY_AUTH_INVALID_TOKEN"];
const TABLES =
  "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_cf%' ESCAPE '\\' AND name <> 'schema_migrations'";

/** Lets everything run that waits for nothing outside. */
async function settled(): Promise<void> {
  // oxlint-disable-next-line no-await-in-loop -- each is one turn of the microtask queue
  for (let turn = 0; turn < 40; turn += 1) await Promise.resolve();
}

export type World = Awaited<ReturnType<typeof createWorld>>;

export async function createWorld(storage: DurableObjectStorage, weakness: Weakness | null) {
  // Nothing of an earlier history goes on in this one.
  vi.clearAllTimers();
  vi.setSystemTime(START_MS);
  const { sql } = storage;
  migrate(storage);
  for (const { name } of sql.exec<{ name: string }>(TABLES).toArray()) sql.exec(`DELETE FROM ${name}`);

  const history: Event[] = [];
  const tasks: Task[] = [];
  const asked = new Map<string, Asked>();
  const credentials: Credential[] = [];
  const jtis: { jti: string; expMs: number }[] = [];
  let sockets: PlayedSocket[] = [];
  let life = 0;
  let serial = 0;
  const next = (): string => `01K${String((serial += 1)).padStart(23, "0")}`;

  const group = createSimulatedGroup(history);
  /** Below which epoch each leaving put the agent out. */
  const leaves = new Map<string, number>();
  /** What isolates remember of the group's list: old lists too. */
  let remembered: { epoch: number; recipients: AgentDid[] } | null = null;
  /** By delivery, the epoch of the list that a peer's message in the group was judged by. */
  const judgedBy = new Map<string, number>();

  // ---- D1: a batch arrives when it arrives, also after its sender has died ---------------------------------------------
  const epochs = new Map<string, number>();
  let isRevoked = false;
  let rekeys = 0;
  const statement = (text: string, args: unknown[] = []): Statement => ({
    sql: text,
    args,
    bind: (...bound) => statement(text, bound),
    all: () => arriving(() => ({ results: operators.select(text, args) })),
  });
  const operators = createSimulatedOperators(weakness === "no-operator-end");
  /** What is asked of D1 happens when it arrives, and is known when the answer comes. */
  const arriving = <T>(happens: () => T): Promise<T> =>
    new Promise((resolve, reject) => {
      const from = life;
      tasks.push({
        life,
        survives: true,
        run(fails) {
          let answer: () => void;
          try {
            if (fails) throw new Error("D1 is out of reach");
            const result = happens();
            answer = () => resolve(result);
          } catch (error) {
            answer = () => reject(error as Error);
          }
          if (from === life) tasks.push({ life, survives: false, run: answer });
        },
      });
    });
  const apply = (batch: readonly Statement[]): void => {
    for (const { sql: text, args } of batch) {
      if (text === "USE INVITE" && !operators.mayUse(String(args[0]))) throw new Error("invite_may_be_used");
      if (text.startsWith(`insert into "fence"`) && weakness !== "no-fence-in-d1") {
        for (const [authority, epoch] of JSON.parse(String(args[0])) as [string, number][])
          if ((epochs.get(authority) ?? 0) > epoch) throw new Error("authority_is_current");
      }
      if (text === "REKEY" && (isRevoked || args[0] !== rekeys)) throw new Error("registry_is_as_read");
    }
    for (const { sql: text, args } of batch) {
      if (text.startsWith(`INSERT INTO "authority_epochs"`)) {
        for (const [authority, epoch] of JSON.parse(String(args[0])) as [string, number][])
          epochs.set(authority, Math.max(epochs.get(authority) ?? 0, epoch));
      }
      operators.apply(text, args);
      if (text === "REVOKE") isRevoked = true;
      if (text === "REKEY") rekeys += 1;
      if (text === "LEAVE") leaves.set(String(args[0]), group.leave());
      if (text === "EFFECT") history.push({ kind: "effect", credential: String(args[0]), what: "row in D1" });
    }
  };
  const db = {
    prepare: (text: string) => statement(text),
    withSession: () => db,
    batch: (batch: Statement[]) =>
      arriving(() => {
        apply(batch);
        return batch.map(() => ({ results: [], meta: { changes: 1 } }));
      }),
  } as unknown as D1Database;

  const hold = (): Promise<void> =>
    new Promise((resolve) => tasks.push({ life, survives: false, run: () => resolve() }));

  // ---- methods of the tests' own: slow handlers that look, or do not look, before what they do -------------------------
  const effect = defineMethod({
    name: "test.effect",
    surface: "rpc",
    permission: { callers: ["agent", "device", "shared", "apiKey", "operator"], roles: ["admin"], scope: null },
    params: z.object({ credential: z.string(), plan: z.array(z.string()) }),
    result: z.object({ done: z.literal(true) }),
    async handler(ctx, { credential, plan }) {
      // Begun under this authority, however long it takes: what the fence in D1 is there for.
      const begun = [bind(ctx.db, fenceStatement(ctx.authority.fence())).on, ctx.db.prepare("EFFECT").bind(credential)];
      for (const step of plan) {
        // oxlint-disable no-await-in-loop -- one step after the other
        if (step === "wait") await hold();
        if (step === "assert") ctx.authority.assertCurrent();
        if (step === "local") ctx.gate?.send(PEER, { fromAgentDid: SELF, payload: JSON.stringify({ credential }) });
        if (step === "d1") {
          await ctx.db.batch(begun).catch((error: unknown) => {
            if (error instanceof Error && error.message === "authority_is_current")
              throw new ProxyError("PROXY_AUTH_REVOKED");
            throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { cause: error });
          });
        }
        // oxlint-enable no-await-in-loop
      }
      return { done: true as const };
    },
  });
  const leave = defineMethod({
    name: "test.leave",
    surface: "rpc",
    permission: { callers: ["agent", "device", "operator"], roles: ["owner"], scope: null },
    params: z.object({}),
    result: z.object({}),
    async handler(ctx) {
      const id = next();
      const fenced = [bind(ctx.db, fenceStatement(ctx.authority.fence())).on, ctx.db.prepare("LEAVE").bind(id)];
      await ctx.db.batch(fenced).catch((error: unknown) => {
        throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { cause: error });
      });
      ctx.gate?.fenceGroup({ groupId: GROUP, subject: SELF, epoch: leaves.get(id) ?? 0 });
      return {};
    },
  });
  const endAgent = defineMethod({
    name: "test.end",
    surface: "rpc",
    permission: { callers: ["operator"], roles: ["owner"], scope: null },
    params: z.object({ keepJti: z.optional(z.string()) }),
    result: z.object({ sockets: z.int(), inFlight: z.int() }),
    async handler(ctx, { keepJti }) {
      if (ctx.gate === null) throw new Error("no gate");
      if (keepJti !== undefined && isRevoked) throw new ProxyError("PROXY_CONFLICT");
      const version = rekeys;
      return ctx.gate.endAgent({
        reason: keepJti === undefined ? "revoked" : "rekeyed",
        ...(keepJti === undefined ? {} : { keepJti }),
        async commit(raise) {
          await ctx.db
            .batch([
              ...raise.map((each) => bind(ctx.db, each).on),
              ctx.db.prepare(keepJti === undefined ? "REVOKE" : "REKEY").bind(version),
            ])
            .catch((error: unknown) => {
              if (error instanceof Error && error.message === "registry_is_as_read")
                throw new ProxyError("PROXY_CONFLICT");
              throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { cause: error });
            });
          return [...jtis];
        },
      });
    },
  });
  /** Keys as D1 knows them, with what they descend from. */
  const grants = new Map<string, ApiKeyGrant>();
  const makeKey = defineMethod({
    name: "test.key",
    surface: "rpc",
    permission: { callers: ["agent", "device", "apiKey"], roles: [], scope: null },
    params: z.object({}),
    result: z.object({ apiKeyId: z.string() }),
    async handler(ctx) {
      if (ctx.gate === null) throw new Error("no gate");
      const scopes = scopesOf(ctx.principal).slice(0, 1);
      const { lineage } = makerOf(ctx.principal, scopes);
      const generation = ctx.gate.apiKeys.generation();
      const apiKeyId = next();
      const tokens = [...ctx.authority.fence(), { authority: issuedAuthority(SELF), epoch: generation }];
      await ctx.db.batch([bind(ctx.db, fenceStatement(tokens)).on]).catch((error: unknown) => {
        if (error instanceof Error && error.message === "authority_is_current")
          throw new ProxyError("PROXY_AUTH_REVOKED");
        throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { cause: error });
      });
      const principal = {
        kind: "apiKey" as const,
        agentDid: SELF,
        apiKeyId,
        serviceAccountId: apiKeyId,
        tenantId: "tenant",
        scopes,
        expMs: null,
        originator: null,
        lineage: weakness === "no-lineage" ? [] : lineage,
      };
      grants.set(apiKeyId, { principal, generation, expMs: null });
      return { apiKeyId };
    },
  });
  const endKey = defineMethod({
    name: "test.endKey",
    surface: "rpc",
    permission: { callers: ["operator"], roles: ["owner"], scope: null },
    params: z.object({ apiKeyId: z.string() }),
    result: z.object({}),
    async handler({ gate: own }, { apiKeyId }) {
      await own?.end({
        apply: () => own.apiKeys.end(apiKeyId),
        raise: () => [{ authority: apiKeyAuthority(apiKeyId), epoch: ENDED_EPOCH }],
      });
      return {};
    },
  });
  const makeTicket = defineMethod({
    name: "test.ticket",
    surface: "rpc",
    permission: { callers: ["agent", "device", "shared"], roles: [], scope: null },
    params: z.object({}),
    result: z.object({ ticket: z.string() }),
    async handler({ gate: own }) {
      if (own === null) throw new Error("no gate");
      return { ticket: (await own.issueRelayTicket()).ticket };
    },
  });
  const makeInvite = defineMethod({
    name: "test.invite",
    surface: "rpc",
    permission: { callers: ["operator"], roles: ["admin"], scope: null },
    params: z.object({}),
    result: z.object({ inviteId: z.string() }),
    async handler(ctx) {
      const inviteId = next();
      const made = ctx.db.prepare("INVITE").bind(inviteId, subjectOf(ctx.principal));
      await ctx.db.batch([bind(ctx.db, fenceStatement(ctx.authority.fence())).on, made]).catch((error: unknown) => {
        throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { cause: error });
      });
      return { inviteId };
    },
  });
  const own = [effect, leave, endAgent, makeKey, endKey, makeTicket, makeInvite];
  const dispatcher = createDispatcher([...deviceMethods, ...operatorMethods, ...own]);

  // ---- one life of the object -------------------------------------------------------------------------------------------
  const openGate = () => {
    const ctx = {
      storage,
      acceptWebSocket: (socket: unknown) => sockets.push(socket as PlayedSocket),
      getWebSockets: () => sockets,
    } as unknown as DurableObjectState;
    const stores = createGateStores(ctx, SELF, config, silentLog);
    const endReason = weakness === "no-look" ? () => null : stores.endReason;
    const calls = createCalls();
    if (weakness === "no-fence-in-d1") calls.drain = () => Promise.resolve(true);
    const commits = createGroupCommit(storage, (error) => {
      throw error;
    });
    const state = { ...stores, endReason, commits, accessMaxStaleMs: config.accessMaxStaleMs };
    const common = { ...state, self: SELF, now: Date.now, log: silentLog, wake: () => commits.wake() };
    const relay = createRelay({
      ...common,
      trust: {
        pair: async () => {
          await hold();
          return 1;
        },
        group: async (_groupId, _to, how) => {
          const known = how?.fresh === true ? null : remembered;
          const read = { isIn: group.isIn(), epoch: group.epoch() };
          await hold();
          if (known !== null) return known;
          remembered = read.isIn ? { epoch: read.epoch, recipients: [PEER] } : null;
          if (remembered === null) throw new ProxyError("PROXY_AUTH_FORBIDDEN");
          return remembered;
        },
      },
    });
    const revocation = createRevocation({ ...common, env: { DB: db }, calls, relay });
    const intake = createIntake({
      ...common,
      nextId: next,
      isRevoked: stores.authority.isOver,
      isEnding: stores.authority.isEnded,
    });
    if (weakness === "no-group-fence") intake.fenceGroup = () => undefined;
    const operations = createOperations({
      ...common,
      relay,
      revocation,
      intake,
      attemptsAt: () => Promise.resolve(null),
    });
    const runner = createRunner({
      ...common,
      env: { DB: db } as unknown as Env,
      config,
      calls,
      operations,
      relay,
      dispatcher: () => dispatcher,
      gateStub: () => {
        throw new Error("there is no other gate in this world");
      },
      background() {},
    });
    relay.onRequest((session, authority, { method, paramsText }) =>
      runner.run(
        authority,
        { requestId: "r", origin: session.origin, bookmarks: null },
        { surface: "rpc", method, params: JSON.parse(paramsText ?? "{}") as unknown },
      ),
    );
    commits.beforeCommit(() => relay.push(Date.now()));
    return { state, commits, relay, runner, intake };
  };
  let gate = openGate();

  // ---- what is seen from outside ----------------------------------------------------------------------------------------
  let seenOutbox = "";
  const readOutbox = (): void => {
    for (const row of sql
      .exec<{ delivery_id: string; envelope: string; body: string }>(
        `SELECT delivery_id, envelope, COALESCE(body, (SELECT body FROM shared_bodies s WHERE s.shared_id = outbound.shared_id)) AS body
           FROM outbound WHERE delivery_id > ? ORDER BY delivery_id`,
        seenOutbox,
      )
      .toArray()) {
      seenOutbox = row.delivery_id;
      const { groupEpoch } = JSON.parse(row.envelope) as { groupEpoch?: number };
      if (groupEpoch !== undefined)
        history.push({ kind: "effect", credential: group.stayAt(groupEpoch), what: "message sent in the group" });
      history.push({
        kind: "effect",
        credential: (JSON.parse(row.body) as { credential: string }).credential,
        what: "message taken in",
      });
    }
  };

  const judge = (credential: string | null, what: string, reply: Reply): void => {
    if (credential === null) return;
    if (reply.ok) history.push({ kind: "accepted", credential, what });
    else if (ENDED_CODES.includes(reply.code)) history.push({ kind: "refused", credential, what });
  };

  const hears = (socket: PlayedSocket, text: string): void => {
    const frame = JSON.parse(text) as {
      type: string;
      id?: string;
      ackId?: string;
      ok?: boolean;
      accepted?: boolean;
      reason?: string;
      payload?: unknown;
      error?: { code: string };
    };
    const id = frame.type === "res" ? frame.id : frame.ackId;
    const waiting = id === undefined ? undefined : asked.get(id);
    if (waiting !== undefined && (frame.type === "res" || frame.type === "enqueue_ack")) {
      asked.delete(id ?? "");
      const isOk = frame.ok ?? frame.accepted ?? false;
      const code = frame.error?.code ?? frame.reason ?? "";
      waiting.settle(
        isOk ? { ok: true, result: frame.payload } : { ok: false, code: code as "PROXY_CONFLICT", message: "" },
      );
    } else {
      history.push({ kind: "handed-out", credential: socket.credential, what: frame.type });
      const judged = frame.type === "deliver" ? judgedBy.get(frame.id ?? "") : undefined;
      if (judged !== undefined)
        history.push({ kind: "handed-out", credential: group.stayAt(judged), what: "message of the group" });
    }
  };
  const ends = (socket: PlayedSocket, code: number): void => {
    if (code === 4001) history.push({ kind: "refused", credential: socket.credential, what: "socket closed" });
  };

  const issue = (credential: Credential, askedAt: number): void => {
    credentials.push(credential);
    const { id, targets, maker } = credential;
    history.push({ kind: "issued", credential: id, targets, askedAt, ...(maker === undefined ? {} : { maker }) });
  };
  const agentCredential = (jti: string, askedAt = 0): void => {
    jtis.push({ jti, expMs: START_MS + YEAR_MS });
    issue({ kind: "agent", id: `agent ${jti.slice(-4)}`, targets: ["agent"], jti }, askedAt);
  };
  const deviceCredential = async (deviceId: string, token: string, askedAt = 0): Promise<void> => {
    const tokenHash = await sha256Base64Url(new TextEncoder().encode(token));
    issue(
      {
        kind: "device",
        id: `${deviceId.slice(0, 2)} ${next().slice(-4)}`,
        targets: [`device ${deviceId}`, "agent"],
        deviceId,
        tokenHash,
      },
      askedAt,
    );
  };
  const sharedCredential = async (secret: string, askedAt = 0): Promise<void> => {
    const secretHash = await sha256Base64Url(new TextEncoder().encode(secret));
    issue({ kind: "shared", id: `shared ${next().slice(-4)}`, targets: ["shared", "agent"], secretHash }, askedAt);
  };

  /** What a credential has made: a key descends from its maker's rights, a ticket carries its issuer's authority. */
  const keyCredential = (maker: Credential, apiKeyId: string, askedAt: number): void => {
    const grant = grants.get(apiKeyId);
    if (grant === undefined) throw new Error("a key that nobody has made");
    const from = maker.kind === "device" ? [`rights ${maker.deviceId}`, "agent"] : maker.targets;
    issue({ kind: "apiKey", id: `key ${apiKeyId.slice(-4)}`, targets: [...from, `key ${apiKeyId}`], grant }, askedAt);
  };
  const ticketCredential = async (maker: string, ticket: string, askedAt: number): Promise<void> => {
    const sha256 = await hashSecret(ticket);
    issue({ kind: "ticket", id: `ticket ${next().slice(-4)}`, targets: [], maker, sha256 }, askedAt);
  };

  /** What the Worker does with a key: it reads its row, and whether it or anything above it has ended. */
  const isKeyInForce = async ({ principal, generation }: ApiKeyGrant): Promise<boolean | null> => {
    const tokens = [
      { authority: apiKeyAuthority(principal.apiKeyId), epoch: 0 },
      { authority: issuedAuthority(SELF), epoch: generation },
      ...lineageTokens(SELF, principal.lineage),
    ];
    try {
      await db.batch([bind(db, fenceStatement(tokens)).on]);
      return true;
    } catch (error) {
      return error instanceof Error && error.message === "authority_is_current" ? false : null;
    }
  };

  /** A proof whose signature nobody looks at: the runtime's `verify` is replaced. */
  const proofNow = (): ProofForm => ({
    version: 1,
    timestampMs: Date.now(),
    nonce: next(),
    bodySha256: "",
    signature: new Uint8Array(64),
    skewMs: 0,
    keyid: null,
    signedTexts: [""],
  });

  /** What the Worker does with an operator's key: it reads its row. */
  const isOperator = (operatorId: string): Promise<boolean | null> =>
    isOperatorInForce(db, operatorId, Date.now()).catch(() => null);

  const admit = async (credential: Credential): Promise<AuthorityRef | OperatorPrincipal | null> => {
    if (credential.kind === "operator") {
      const isInForce = await isOperator(credential.operatorId);
      if (isInForce === false) history.push({ kind: "refused", credential: credential.id, what: "operator looked up" });
      return isInForce === true ? operators.principalOf(credential.operatorId) : null;
    }
    return admitToGate(credential);
  };

  const admitToGate = async (credential: Credential): Promise<AuthorityRef | null> => {
    if (credential.kind === "operator" || credential.kind === "invite") return null;
    const isInForce = credential.kind === "apiKey" ? await isKeyInForce(credential.grant) : true;
    if (isInForce === false) history.push({ kind: "refused", credential: credential.id, what: "key looked up" });
    // Used up or past its time, a ticket is refused for that.
    if (isInForce !== true) return null;
    const { state, commits } = gate;
    const proof = proofNow();
    try {
      if (credential.kind === "device") {
        return await admitDeviceToken({ ...state, self: SELF }, {
          kind: "device",
          agentDid: SELF,
          tokenHash: credential.tokenHash,
          proof,
        } as never);
      }
      if (credential.kind === "shared") {
        const shared = { kind: "shared" as const, agentDid: SELF, secretHash: credential.secretHash };
        return await admitShared({ ...state, self: SELF }, createLockout(), { credential: shared, address: null });
      }
      if (credential.kind === "apiKey") return await admitApiKey(state, credential.grant, false);
      if (credential.kind === "ticket")
        return await commits.commit(() => state.relayTickets.consume(credential.sha256, Date.now()));
      const principal = {
        kind: "agent" as const,
        agentDid: SELF,
        ownerDid: OWNER,
        jti: credential.jti,
        expMs: START_MS + YEAR_MS,
        keyX: "key",
      };
      const admission: AgentAdmission = { principal, nonce: next(), timestampSeconds: Date.now() / 1_000 };
      return await commits.commit(() => {
        admitAgent(state, admission, Date.now());
        return {
          kind: "agent",
          epoch: state.authority.epoch(),
          jti: credential.jti,
          expMs: principal.expMs,
          principal,
        };
      });
    } catch (error) {
      if (!(error instanceof GateRefusal)) throw error;
      if (!ENDED_REASONS.includes(error.refusal.reason)) throw error;
      history.push({ kind: "refused", credential: credential.id, what: error.refusal.reason });
      return null;
    }
  };

  /** Work that goes on while the history does. Its faults are the test's. */
  const faults: unknown[] = [];
  const going = (work: Promise<unknown>): void => void work.catch((error: unknown) => faults.push(error));

  const call = (
    credential: Credential | null,
    method: string,
    params: Record<string, unknown>,
    then?: (reply: Reply) => unknown,
  ): void => {
    const { runner } = gate;
    going(
      (async () => {
        const ref = credential === null ? ROOT : await admit(credential);
        if (ref === null) return;
        const reply = await runner.run(
          ref,
          { requestId: "r", origin: null, bookmarks: null },
          { surface: "rpc", method, params },
        );
        judge(credential?.id ?? null, method, reply);
        await then?.(reply);
      })(),
    );
  };

  const ask = (socket: PlayedSocket, frame: Record<string, unknown>, then?: (reply: Reply) => unknown): void => {
    const session = gate.state.sockets.of(socket as unknown as WebSocket);
    if (session === null || socket.readyState !== WebSocket.OPEN) return;
    const id = next();
    asked.set(id, {
      credential: socket.credential,
      settle(reply) {
        judge(socket.credential, String(frame["type"]), reply);
        if (then !== undefined) going(Promise.resolve(then(reply)));
      },
    });
    gate.relay.message(session, JSON.stringify({ v: 1, id, ts: new Date(Date.now()).toISOString(), ...frame }));
  };

  const world = {
    history,
    credentials,
    faults,
    deviceIds: [] as string[],
    sockets: () => sockets.filter(({ readyState }) => readyState === WebSocket.OPEN),
    waiting: () => tasks.filter((task) => task.survives || task.life === life).length,

    connect(credential: Credential): void {
      // A key opens no socket.
      if (credential.kind === "apiKey") return;
      const { state, commits, relay } = gate;
      going(
        (async () => {
          const ref = await admitToGate(credential);
          if (ref === null) return;
          const socket = new PlayedSocket(credential.id, hears, ends);
          const accepted = await commits.commit(() =>
            state.endReason(ref) === null
              ? state.sockets.accept(
                  socket as unknown as WebSocket,
                  { authority: ref, scopes: scopesOf(ref.principal), origin: null, dialect: "v1" },
                  Date.now(),
                )
              : null,
          );
          if (accepted === null) history.push({ kind: "refused", credential: credential.id, what: "upgrade" });
          else relay.supersede(accepted.superseded);
        })(),
      );
    },

    /** A ticket opens a socket and nothing else. */
    request: (credential: Credential, plan: string[]) =>
      credential.kind === "ticket" || credential.kind === "invite"
        ? undefined
        : call(credential, "test.effect", { credential: credential.id, plan }),

    /** Whoever holds an invite comes by it, which is decided in D1 alone. */
    useInvite(credential: Credential): void {
      if (credential.kind !== "invite") return;
      const { id, inviteId } = credential;
      const use = [statement("USE INVITE", [inviteId]), statement("EFFECT", [id])];
      going(
        db.batch(use as unknown as D1PreparedStatement[]).then(
          () => history.push({ kind: "accepted", credential: id, what: "invite" }),
          (error: unknown) => {
            if (error instanceof Error && error.message === "invite_may_be_used")
              history.push({ kind: "refused", credential: id, what: "invite" });
          },
        ),
      );
    },

    /** A credential, or a socket of it, makes something that is to end with it. */
    derive(by: Credential | PlayedSocket, method: "test.key" | "test.ticket" | "test.invite"): void {
      const askedAt = history.length;
      const maker = by instanceof PlayedSocket ? credentials.find(({ id }) => id === by.credential) : by;
      if (maker === undefined || maker.kind === "ticket") return;
      const then = async (reply: Reply): Promise<void> => {
        if (!reply.ok) return;
        const made = reply.result as { apiKeyId?: string; ticket?: string; inviteId?: string };
        const { apiKeyId, ticket, inviteId } = made;
        if (inviteId !== undefined)
          issue({ kind: "invite", id: `invite ${next().slice(-4)}`, targets: [], maker: maker.id, inviteId }, askedAt);
        if (apiKeyId !== undefined) keyCredential(maker, apiKeyId, askedAt);
        if (ticket !== undefined) await ticketCredential(maker.id, ticket, askedAt);
      };
      if (by instanceof PlayedSocket) ask(by, { type: "req", method, params: {} }, then);
      else call(by, method, {}, then);
    },
    say: (socket: PlayedSocket, plan: string[]) =>
      ask(socket, { type: "req", method: "test.effect", params: { credential: socket.credential, plan } }),
    enqueue: (socket: PlayedSocket) =>
      ask(socket, { type: "enqueue", toAgentDid: PEER, payload: { credential: socket.credential } }),
    enqueueInGroup: (socket: PlayedSocket, isToAll: boolean) =>
      ask(socket, {
        type: "enqueue",
        groupId: GROUP,
        ...(isToAll ? {} : { toAgentDid: PEER }),
        payload: { credential: socket.credential },
      }),
    heartbeat: (socket: PlayedSocket) => ask(socket, { type: "heartbeat" }),

    deliver(): void {
      const { state, commits } = gate;
      const queuedMessage = {
        deliveryId: next(),
        createdAtMs: Date.now(),
        bytes: 2,
        envelope: JSON.stringify({ fromAgentDid: null }),
        body: "{}",
      };
      going(commits.commit(() => state.queue.putLocal("test", queuedMessage, Date.now())));
    },

    /** A peer sends in the group, by whatever list it remembers. */
    deliverInGroup(): void {
      const judged = group.lastSeen();
      const deliveryId = next();
      judgedBy.set(deliveryId, judged);
      const envelope = JSON.stringify({ fromAgentDid: PEER, groupId: GROUP, groupEpoch: judged });
      const message = { deliveryId, createdAtMs: Date.now(), bytes: 2, envelope, body: "{}" };
      going(gate.intake.receive(PEER, [message]));
    },

    /** An admin removes the agent: D1 first, then the fence in its gate by a call, then the answer. */
    removeFromGroup(): void {
      const end = next();
      history.push({ kind: "end-asked", end, target: "group" });
      const place = (epoch: number): void => {
        const { commits, intake } = gate;
        going(
          commits
            .commit(() => intake.fenceGroup({ groupId: GROUP, subject: SELF, epoch }))
            .then(() => {
              readOutbox();
              history.push({ kind: "end-answered", end, ok: true });
            }),
        );
      };
      const removal = (): void => {
        const epoch = group.leave();
        tasks.push({ life, survives: true, run: (fails) => (fails ? undefined : place(epoch)) });
      };
      tasks.push({ life, survives: true, run: (fails) => (fails ? undefined : removal()) });
    },

    /** The agent comes again, by a token that somebody gave it. */
    joinGroup(): void {
      const askedAt = history.length;
      tasks.push({ life, survives: true, run: (fails) => (fails ? undefined : group.join(askedAt)) });
    },

    /** Ends an authority: by the operator, a credential over HTTP, or a frame on a socket. */
    end(by: Credential | PlayedSocket | null, method: string, params: Record<string, unknown>, target: string): void {
      const end = next();
      const askedAt = history.length;
      const lasting =
        method === "test.end"
          ? { lasting: "keepJti" in params ? ("unless-answered" as const) : ("for-good" as const) }
          : {};
      history.push({ kind: "end-asked", end, target, ...lasting });
      // What a device made outlasts its token, and ends with its rights.
      const rights = method === "device.token.revoke" || method === "device.pair.remove" ? next() : null;
      if (rights !== null)
        history.push({
          kind: "end-asked",
          end: rights,
          target: target.replace("device", "rights"),
          lasting: "for-good",
        });
      const answered = (ok: boolean): void => {
        // What is on disk by now came before the answer.
        readOutbox();
        history.push({ kind: "end-answered", end, ok });
        if (rights !== null) history.push({ kind: "end-answered", end: rights, ok });
      };
      const took = async (result: Record<string, unknown>): Promise<void> => {
        if (typeof result["token"] === "string")
          await deviceCredential(String(params["deviceId"]), result["token"], askedAt);
        if (typeof result["secret"] === "string") await sharedCredential(result["secret"], askedAt);
        if (typeof params["keepJti"] === "string") agentCredential(params["keepJti"], askedAt);
      };
      const then = async (reply: Reply): Promise<void> => {
        answered(reply.ok);
        if (reply.ok) await took(reply.result as Record<string, unknown>);
      };
      if (by instanceof PlayedSocket) ask(by, { type: "req", method, params }, then);
      else call(by, method, params, then);
    },

    rekey(): void {
      world.end(null, "test.end", { keepJti: next() }, "agent");
    },

    claim(deviceId: string): void {
      const proof = proofNow();
      const { state } = gate;
      const askedAt = history.length;
      going(
        claimDeviceToken({ ...state, self: SELF }, createLockout(), {
          deviceId,
          proof,
          address: null,
          requestId: "claim",
          tokenTtlMs: YEAR_MS,
        }).then(
          ({ token }) => deviceCredential(deviceId, token, askedAt),
          (error: unknown) => {
            if (!(error instanceof GateRefusal)) throw error;
          },
        ),
      );
    },

    /** Lets one thing happen that is under way: a batch arrives, an answer comes back, a handler goes on. */
    release(index: number, fails: boolean): void {
      const task = tasks.splice(index % tasks.length, 1)[0];
      if (task !== undefined && (task.survives || task.life === life)) task.run(fails);
    },

    pass: (ms: number) => void vi.advanceTimersByTime(ms),

    /** The process dies: memory, sockets and whatever ran are gone; what is under way to D1 may still arrive. */
    crash(): void {
      history.push({ kind: "crash" });
      life += 1;
      vi.clearAllTimers();
      asked.clear();
      for (const socket of sockets) socket.readyState = WebSocket.CLOSED;
      sockets = [];
      if (weakness === "no-disk")
        sql.exec(
          "UPDATE devices SET epoch = 1, ended_at_ms = NULL, ended_as = NULL, token_sha256 = (SELECT token_sha256 FROM ended_device_tokens e WHERE e.device_id = devices.device_id ORDER BY rowid LIMIT 1), token_expires_at_ms = ? WHERE epoch > 1".replace(
            "ORDER BY rowid ",
            "",
          ),
          START_MS + YEAR_MS,
        );
      gate = openGate();
    },

    /** The object sleeps, which it does only when nothing is under way; its sockets stay open. */
    evict(): void {
      if (tasks.some((task) => task.life === life) || vi.getTimerCount() > 0) return;
      history.push({ kind: "eviction" });
      life += 1;
      sockets = sockets.filter(({ readyState }) => readyState === WebSocket.OPEN);
      gate = openGate();
    },

    async turn(): Promise<void> {
      await settled();
      readOutbox();
    },
  };

  // An agent, two devices, the first of which manages the others, and a shared secret.
  agentCredential(next());
  group.join(0);
  for (const [letter, scopes] of [
    ["a", ["relay", "send", "tasks:write", "devices"]],
    ["b", ["relay", "send"]],
  ] as [string, Scope[]][]) {
    const deviceId = letter.repeat(22);
    world.deviceIds.push(deviceId);
    const request = {
      deviceId,
      publicKey: "A".repeat(43),
      label: null,
      scopes,
      digest: "",
      requestId: next(),
      requestedBy: "",
      expiresAtMs: 0,
    };
    const device = gate.state.devices.pair(request, Date.now());
    // oxlint-disable-next-line no-await-in-loop
    const sha256 = await sha256Base64Url(new TextEncoder().encode(`token of ${letter}`));
    gate.state.devices.claim(device, { sha256, expiresAtMs: START_MS + YEAR_MS });
    // oxlint-disable-next-line no-await-in-loop
    await deviceCredential(deviceId, `token of ${letter}`);
  }
  // Two operators with keys.
  for (const name of ["ann", "bea"]) {
    const operatorId = operators.add(next(), name);
    issue({ kind: "operator", id: `operator ${name}`, targets: [`operator ${operatorId}`], operatorId }, 0);
  }
  gate.state.shared.replace(await sha256Base64Url(new TextEncoder().encode("first secret")), []);
  await sharedCredential("first secret");
  return world;
}
