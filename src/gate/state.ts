/** A gate that is open, put together in one order: stores, commits, relay, messages, calls, maintenance. */
import { createAuditReplication } from "../audit/replication.ts";
import type { RemoteGate } from "../call/remote-gate.ts";
import type { Config } from "../config.ts";
import type { Dispatcher } from "../rpc/dispatcher.ts";
import type { Log } from "../telemetry/log.ts";
import { flushSoon } from "../telemetry/metrics.ts";
import type { AgentDid } from "../wire/did.ts";
import { JsonText } from "../wire/json-text.ts";
import { newUlid } from "../wire/ulid.ts";
import { admitAgent } from "./admission/agent.ts";
import { createCalls } from "./calls/in-flight.ts";
import { createOperations } from "./calls/operations.ts";
import { createRevocation, type Revocation } from "./calls/revocation.ts";
import { createRunner, type Runner } from "./calls/runner.ts";
import { createMaintenance, type Maintenance } from "./maintenance.ts";
import { createDeliveryIds } from "./outbox/delivery-id.ts";
import { createSubmissions, type Submissions } from "./outbox/submission.ts";
import { createTransfer } from "./outbox/transfer.ts";
import type { PeerGate } from "./protocol/peer.ts";
import { createIntake, type Intake } from "./queue/intake.ts";
import { createReporting } from "./queue/reporting.ts";
import type { SendTrust } from "./relay/enqueue.ts";
import { createRelay, type Relay } from "./relay/relay.ts";
import { createGroupCommit, type GroupCommit } from "./storage/group-commit.ts";
import { createGateStores, type GateStores } from "./stores.ts";

export type GateState = GateStores & {
  self: AgentDid;
  commits: GroupCommit;
  relay: Relay;
  submissions: Submissions;
  intake: Intake;
  revocation: Revocation;
  runner: Runner;
  maintenance: Maintenance;
};

export type GateStateDeps = {
  ctx: DurableObjectState;
  env: Env;
  self: AgentDid;
  config: Config;
  dispatcher: () => Dispatcher;
  gateStub: (did: AgentDid) => PeerGate & RemoteGate;
  trust: SendTrust;
  log: Log;
  /** Memory and disk may differ: the object must start anew. */
  onBroken: (error: unknown) => void;
};

/** @returns everything of one gate; nothing below the gate's own file is given the whole of it. */
export function createGateState(deps: GateStateDeps): GateState {
  const { ctx, env, self, config, gateStub, trust, log } = deps;
  const now = Date.now;
  const background = (work: Promise<unknown>): void => ctx.waitUntil(work);

  const stores = createGateStores(ctx, self, config, log);
  const commits = createGroupCommit(ctx.storage, deps.onBroken);
  const common = { ...stores, commits, self, now, log };

  const relay = createRelay({ ...common, trust });
  const submissions = createSubmissions({
    ...common,
    epoch: stores.authority.epoch,
    admit: (admission, nowMs, deferredRefusal) =>
      admitAgent({ ...stores, accessMaxStaleMs: config.accessMaxStaleMs }, admission, nowMs, deferredRefusal),
    onSettled: relay.sendReceipts,
  });
  const intake = createIntake({
    ...common,
    nextId: createDeliveryIds(null),
    isRevoked: stores.authority.isOver,
    isEnding: stores.authority.isEnded,
  });

  const transfer = createTransfer({ ...common, gateStub, expire: submissions.expire });
  const reporting = createReporting({ ...common, gateStub });
  const auditReplication = createAuditReplication({ ...common, outbox: stores.audit, db: env.DB });
  const { recordAttempts: start, nextWorkMs: nextDueMs, nextRecordMs } = stores.queue;
  const dispatching = { start, nextDueMs, nextRecordMs };
  const maintenance = createMaintenance({
    ...common,
    config,
    relay,
    works: [transfer, reporting, auditReplication, dispatching],
    setAlarm: (atMs) => void ctx.storage.setAlarm(atMs),
    flushNumbers: () => flushSoon(env, background),
  });
  const { wake } = maintenance;

  const calls = createCalls();
  const revocation = createRevocation({ ...common, env, calls, relay, wake });
  const operations = createOperations({
    ...common,
    intake,
    relay,
    revocation,
    wake,
    attemptsAt: (recipient, deliveryId) => gateStub(recipient).attempts(deliveryId),
  });
  const { dispatcher } = deps;
  const runner = createRunner({ ...common, env, config, calls, operations, relay, dispatcher, gateStub, background });

  relay.onRequest((session, authority, { method, paramsText }) => {
    const request = { requestId: newUlid(now()), origin: session.origin, bookmarks: null };
    return runner.run(authority, request, {
      surface: "rpc",
      method,
      params: paramsText === undefined ? undefined : new JsonText(paramsText),
    });
  });
  commits.beforeCommit(maintenance.beforeCommit);
  return { ...stores, self, commits, relay, submissions, intake, revocation, runner, maintenance };
}
