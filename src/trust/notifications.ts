/**
 * Notifying an initiator that its ticket was confirmed. The row in D1 says that a notification is pending until the initiator's gate
 * has it on disk, so that a crash in between loses nothing; housekeeping sends what a request could not.
 */
import { backoffMs } from "../resilience/backoff.ts";
import { withDeadline } from "../resilience/deadline.ts";
import { type RoundLimits, type RoundReport, runRound } from "../resilience/round.ts";
import { errorFields } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import { PEER_TIMEOUT_MS, type PeerGates, type TrustDeps } from "./peer-gates.ts";
import type { Profile } from "./profile.ts";
import { listPendingNotifications, postponeNotification, settleNotification } from "./ticket-store.ts";

export type NotificationDeps = TrustDeps & { readonly gates: PeerGates };

/** What an initiator is notified of. */
export type Confirmation = {
  readonly confirmId: string;
  readonly initiatorDid: AgentDid;
  readonly initiatorProfile: Profile;
  readonly responderDid: AgentDid;
  readonly responderProfile: Profile;
  readonly confirmedAtMs: number;
};

/** When housekeeping first looks at a notification that a request should have made. */
export const NOTIFY_GRACE_MS = 15_000;

const RETRY = { initialMs: 15_000, maxMs: 3_600_000, jitterRatio: 0.2 } as const;
/** Past this age an initiator is no longer notified: its queue has refused it for a week. */
const NOTIFY_MAX_AGE_MS = 7 * 86_400_000;

/**
 * Puts "your ticket was confirmed" into the initiator's delivery queue. The delivery id derives from the confirmation, so
 * a repeat is queued once.
 *
 * @returns whether the initiator's gate has it on disk. A failure is logged as an error, and the notification stays pending in D1.
 */
export async function notifyInitiator(deps: NotificationDeps, confirmation: Confirmation): Promise<boolean> {
  try {
    await withDeadline(PEER_TIMEOUT_MS, () => notify(deps, confirmation));
  } catch (error) {
    logFailure(deps, confirmation, error);
    return false;
  }
  await settle(deps, confirmation);
  return true;
}

/**
 * Sends the pending notifications that are due, and drops those that nobody waits for any more.
 *
 * @returns what the round came to; `left` counts those due that it did not come to, as far as it has seen
 */
export async function retryPendingNotifications(deps: NotificationDeps, limits: RoundLimits): Promise<RoundReport> {
  const pending = await listPendingNotifications(deps.db, deps.now(), limits.calls + 1);
  return runRound(pending, limits, {
    callsPerItem: 1,
    now: deps.now,
    async run(each, ask) {
      const ageMs = deps.now() - each.confirmedAtMs;
      const isTooOld = ageMs > NOTIFY_MAX_AGE_MS;
      if (each.stands && !isTooOld) await ask(each.initiatorDid, () => notify(deps, each));
      if (each.stands && isTooOld) {
        deps.log.error("trust.notification_given_up", { initiatorDid: each.initiatorDid, ageMs });
      }
      await settle(deps, each);
    },
    async failed(each, error) {
      logFailure(deps, each, error);
      const dueAtMs = deps.now() + backoffMs(each.attempts + 1, RETRY, Math.random());
      await postponeNotification(deps.db, each.confirmId, dueAtMs);
    },
  });
}

async function notify(deps: NotificationDeps, confirmation: Confirmation): Promise<void> {
  const { confirmId, initiatorDid, initiatorProfile, responderDid, responderProfile, confirmedAtMs } = confirmation;
  // The ticket was made where the initiator is.
  const { proxyOrigin: issuerProxyOrigin } = initiatorProfile;
  const payload = {
    kind: "pair.confirmed",
    initiatorAgentDid: initiatorDid,
    responderAgentDid: responderDid,
    responderProfile,
    ...(issuerProxyOrigin === undefined ? {} : { issuerProxyOrigin }),
    confirmedAtMs,
  };
  await deps.gates.of(initiatorDid).notify({
    fromAgentDid: null,
    payload: JSON.stringify(payload),
    deliveryId: confirmId,
  });
}

/** Where this fails the notification stays pending and is sent a second time, under the same delivery id. */
async function settle(deps: NotificationDeps, { confirmId, initiatorDid }: Confirmation): Promise<void> {
  try {
    await settleNotification(deps.db, confirmId);
  } catch (error) {
    deps.log.error("trust.notification_not_settled", { initiatorDid, confirmId, ...errorFields(error) });
  }
}

function logFailure(deps: NotificationDeps, confirmation: Confirmation, error: unknown): void {
  const { initiatorDid, responderDid, confirmId } = confirmation;
  deps.log.error("trust.notification_failed", { initiatorDid, responderDid, confirmId, ...errorFields(error) });
}
