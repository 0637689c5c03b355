/** What a gate keeps: each store once, on its own tables, as they are when it wakes. */
import { type AuditOutbox, createAuditOutbox } from "../audit/outbox.ts";
import { type AgentAuthority, createAgentAuthority } from "../authority/agent.ts";
import { createDevices, type Devices } from "../authority/device/devices.ts";
import { type ApiKeys, createApiKeys } from "../authority/ended-api-keys.ts";
import { type AuthorityRef, endReason } from "../authority/reference.ts";
import { createSharedSecret, type SharedSecret } from "../authority/shared-secret.ts";
import type { Config } from "../config.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import { type AccessValidations, createAccessValidations } from "./admission/access-validations.ts";
import { createDrift, type Drift } from "./admission/clock-drift.ts";
import { createGroupFences, type GroupFences } from "./admission/group-fences.ts";
import { createNonces, type Nonces } from "./admission/nonces.ts";
import { createPeerFences, type PeerFences } from "./admission/peer-fences.ts";
import { createTrustFences, type TrustFences } from "./admission/trust-fences.ts";
import { createRate, type Rate } from "./admission/rate-limit.ts";
import { createDeliveryIds } from "./outbox/delivery-id.ts";
import { createOutbox, type Outbox, type OutboxLimits } from "./outbox/outbox.ts";
import { type Arrivals, createArrivals } from "./queue/arrivals.ts";
import { createQueue, type Queue, type QueueLimits } from "./queue/queue.ts";
import { createSockets, type Sockets } from "./relay/sockets.ts";
import { createRelayTickets, type RelayTickets } from "./relay/tickets.ts";
import { migrate } from "./storage/schema.ts";

export type GateStores = {
  sql: SqlStorage;
  // Whose authority holds.
  authority: AgentAuthority;
  devices: Devices;
  shared: SharedSecret;
  apiKeys: ApiKeys;
  relayTickets: RelayTickets;
  // What a request has to get past.
  nonces: Nonces;
  rate: Rate;
  drift: Drift;
  accessValidations: AccessValidations;
  fences: PeerFences;
  groupFences: GroupFences;
  /** Both of them. */
  trustFences: TrustFences;
  // What is on its way.
  outbox: Outbox;
  queue: Queue;
  arrivals: Arrivals;
  sockets: Sockets;
  audit: AuditOutbox;
  /** Why something that began under an authority may not continue at this moment, or null. */
  endReason: (ref: AuthorityRef) => string | null;
  /** Forgets what is past everywhere, a bounded amount a turn. */
  prune(nowMs: number): void;
  /** When there will be something to forget (ms since the epoch); null when nothing is kept. */
  nextPruneMs(): number | null;
};

/** Brings the schema up to date and reads into memory what memory mirrors. @returns the stores of one gate */
export function createGateStores(ctx: DurableObjectState, self: AgentDid, config: Config, log: Log): GateStores {
  migrate(ctx.storage);
  const { sql } = ctx.storage;
  const authority = createAgentAuthority(sql);
  const devices = createDevices(sql);
  const shared = createSharedSecret(sql);
  const apiKeys = createApiKeys(sql);
  const relayTickets = createRelayTickets(sql);
  const nonces = createNonces(sql, config.skewMaxSeconds);
  const accessValidations = createAccessValidations(sql);
  const fences = createPeerFences(sql);
  const groupFences = createGroupFences(sql);
  const trustFences = createTrustFences({ self, peers: fences, groups: groupFences });
  const lastId = sql.exec<{ last: string | null }>("SELECT MAX(delivery_id) AS last FROM outbound").one().last;
  const outbox = createOutbox(sql, outboxLimits(config), createDeliveryIds(lastId));
  const queue = createQueue({ sql, limits: queueLimits(config), admits: trustFences.admits, now: Date.now });
  const sockets = createSockets(ctx, (error) => log.error("relay.close_failed", errorFields(error)));
  // What was on its way to sockets that a crash took along waits for no acknowledgement any more.
  queue.failLost((socketId) => sockets.byId(socketId) !== null, Date.now());

  return {
    sql,
    authority,
    devices,
    shared,
    apiKeys,
    relayTickets,
    nonces,
    rate: createRate(sql, config.rateLimitPerAgent),
    drift: createDrift(sql, config.skewWarnSeconds),
    accessValidations,
    fences,
    groupFences,
    trustFences,
    outbox,
    queue,
    arrivals: createArrivals(),
    sockets,
    audit: createAuditOutbox(sql),

    endReason: (ref) => endReason({ agent: authority, devices, shared, apiKeys }, ref, Date.now()),

    prune(nowMs) {
      nonces.prune(nowMs);
      authority.prune(nowMs);
      outbox.prune(nowMs);
      queue.prune(nowMs);
      relayTickets.prune(nowMs);
      devices.prune(nowMs);
      apiKeys.prune(nowMs);
      groupFences.prune(nowMs);
      accessValidations.prune(nowMs - config.accessMaxStaleMs);
    },

    nextPruneMs() {
      const dues = [nonces.nextDueMs(), outbox.nextPruneMs(), queue.nextPruneMs()].filter((due) => due !== null);
      return dues.length === 0 ? null : Math.min(...dues);
    },
  };
}

function outboxLimits({ relayOutboxMax, relayQueueTtlMs, relayBatchMs }: Config): OutboxLimits {
  return { outboxMax: relayOutboxMax, ttlMs: relayQueueTtlMs, batchMs: relayBatchMs };
}

function queueLimits(config: Config): QueueLimits {
  return {
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
}
