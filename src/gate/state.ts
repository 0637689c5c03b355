/** Everything that a gate with a schema holds, made once at its first verified call or at its waking. */
import { createAuditOutbox } from "../audit/outbox.ts";
import { createLockout } from "../auth/lockout.ts";
import { createAgentAuthority } from "../authority/agent.ts";
import { createDevices } from "../authority/devices.ts";
import { createApiKeys } from "../authority/ended-api-keys.ts";
import { type Authorities, type AuthorityRef, endReason } from "../authority/reference.ts";
import { createSharedSecret } from "../authority/shared-secret.ts";
import type { Config } from "../config.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import { createAccessValidations } from "./admission/access-validations.ts";
import type { AdmissionParts } from "./admission/agent.ts";
import { createDrift } from "./admission/clock-drift.ts";
import { createNonces } from "./admission/nonces.ts";
import { createPeerFences } from "./admission/peer-fences.ts";
import { createRate } from "./admission/rate-limit.ts";
import { type Calls, createCalls } from "./calls/in-flight.ts";
import { createDeliveryIds } from "./outbox/delivery-id.ts";
import { createOutbox } from "./outbox/outbox.ts";
import { createQueue } from "./queue/queue.ts";
import { createSockets } from "./relay/sockets.ts";
import { createRelayTickets } from "./relay/tickets.ts";
import { migrate } from "./storage/schema.ts";

export type GateState = ReturnType<typeof createGateState>;

/** Lays or brings up the schema and reads into memory what memory mirrors. */
export function createGateState(ctx: DurableObjectState, config: Config, log: Log) {
  migrate(ctx.storage);
  const { sql } = ctx.storage;
  const lastId = sql.exec<{ last: string | null }>("SELECT MAX(delivery_id) AS last FROM outbox").one().last;
  const authority = createAgentAuthority(sql);
  const nonces = createNonces(sql, config.skewMaxSeconds);
  const rate = createRate(sql, config.rateLimitPerAgent);
  const calls: Calls = createCalls();
  const drift = createDrift(sql, config.skewWarnSeconds);
  const accessValidations = createAccessValidations(sql);
  const admission: AdmissionParts = {
    accessValidations,
    authority,
    nonces,
    rate,
    drift,
    accessMaxStaleMs: config.accessMaxStaleMs,
  };
  const outbox = createOutbox(sql, { outboxMax: config.relayOutboxMax }, createDeliveryIds(lastId));
  const queueLimits = {
    queueMax: config.relayQueueMax,
    ttlMs: config.relayQueueTtlMs,
    maxAttempts: config.relayRetryMaxAttempts,
    retry: {
      initialMs: config.relayRetryInitialMs,
      maxMs: config.relayRetryMaxMs,
      jitterRatio: config.relayRetryJitterRatio,
    },
    deadLetterRetentionMs: config.deadLetterRetentionMs,
  };
  const fences = createPeerFences(sql);
  const queue = createQueue({
    sql,
    limits: queueLimits,
    admits: (sender, trustEpoch) => fences.admits(sender, trustEpoch),
  });
  const devices = createDevices(sql);
  const shared = createSharedSecret(sql);
  const apiKeys = createApiKeys(sql);
  const audit = createAuditOutbox(sql);
  const authorities: Authorities = { agent: authority, devices, shared, apiKeys };
  const relayTickets = createRelayTickets(sql);
  const sockets = createSockets(ctx, (error) => log.error("relay.close_failed", errorFields(error)));
  // What was on its way to sockets that a crash took along waits for no acknowledgement any more.
  queue.failLost((socketId) => sockets.byId(socketId) !== null, Date.now());

  return {
    sql,
    accessValidations,
    authority,
    devices,
    nonces,
    shared,
    apiKeys,
    audit,
    lockout: createLockout(),
    admission,
    rate,
    drift,
    calls,
    outbox,
    queue,
    fences,
    relayTickets,
    sockets,

    /** Why what began under an authority may not go on at this moment, or null. */
    endReason: (ref: AuthorityRef): string | null => endReason(authorities, ref, Date.now()),

    /** Forgets what is past everywhere, a bounded amount a turn. */
    prune(nowMs: number): void {
      nonces.prune(nowMs);
      authority.prune(nowMs);
      outbox.prune(nowMs);
      queue.prune(nowMs);
      relayTickets.prune(nowMs);
      devices.prune(nowMs);
      apiKeys.prune(nowMs);
      accessValidations.prune(nowMs - config.accessMaxStaleMs);
    },

    /** When there will be something to forget; null when nothing is kept. */
    nextPruneMs(): number | null {
      const dues = [nonces.nextDueMs(), outbox.nextPruneMs(), queue.nextPruneMs()].filter((due) => due !== null);
      return dues.length === 0 ? null : Math.min(...dues);
    },
  };
}
