/**
 * What trust owes to gates after its commit in D1: notifyStatements an initiator that its ticket was confirmed, and a fence in
 * both gates after a removal. The row says that it is owed until the gate has it on disk, so a crash in between loses
 * nothing; housekeeping pays what a request could not.
 */
import type { RemoteGate } from "../call/remote-gate.ts";
import { errorFields, type Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Profile } from "./profile.ts";
import { listPendingNotifications, postponeNotification, settleNotification } from "./ticket-store.ts";

export type NotificationDeps = {
  readonly db: D1Database;
  readonly gates: { of(did: AgentDid): Pick<RemoteGate, "notify" | "fencePeer"> };
  readonly now: () => number;
  readonly log: Log;
};

export type Confirmation = {
  readonly confirmId: string;
  readonly initiatorDid: AgentDid;
  readonly responderDid: AgentDid;
  readonly responderProfile: Profile;
  readonly confirmedAtMs: number;
};

/** A request waits this long for the initiator's gate; then the debt is left to housekeeping. */
export const NOTIFY_TIMEOUT_MS = 5_000;
/** When housekeeping first looks at a notification that a request should have made. */
export const NOTIFY_GRACE_MS = 15_000;

const RETRY_INITIAL_MS = 15_000;
const RETRY_MAX_MS = 3_600_000;
/** Past this age an initiator is no longer told: its queue has refused the news for a week. */
const NOTIFY_MAX_AGE_MS = 7 * 86_400_000;
export const BATCH = 100;

/**
 * Puts "your ticket was confirmed" into the initiator's delivery queue. The delivery id derives from the confirmation, so
 * a repeat is queued once.
 *
 * @returns whether the initiator's gate has it on disk. A failure is logged as an error and stays owed in D1.
 */
export async function notifyInitiator(deps: NotificationDeps, confirmation: Confirmation): Promise<boolean> {
  const { confirmId, initiatorDid, responderDid, responderProfile, confirmedAtMs } = confirmation;
  const payload = {
    kind: "pair.confirmed",
    initiatorAgentDid: initiatorDid,
    responderAgentDid: responderDid,
    responderProfile,
    confirmedAtMs,
  };
  try {
    await withinMs(
      NOTIFY_TIMEOUT_MS,
      deps.gates.of(initiatorDid).notify({
        fromAgentDid: null,
        payload: JSON.stringify(payload),
        deliveryId: confirmId,
      }),
    );
  } catch (error) {
    deps.log.error("trust.notification_failed", { initiatorDid, responderDid, confirmId, ...errorFields(error) });
    return false;
  }
  try {
    await settleNotification(deps.db, confirmId);
  } catch (error) {
    // The initiator has been told; the debt stays on record and is paid a second time under the same delivery id.
    deps.log.error("trust.notification_not_settled", { initiatorDid, confirmId, ...errorFields(error) });
  }
  return true;
}

/**
 * Pays the notifications that are due.
 *
 * @returns how many are paid or dropped, and how many failed again
 */
export async function retryPendingNotifications(deps: NotificationDeps): Promise<{ settled: number; failed: number }> {
  const owed = await listPendingNotifications(deps.db, deps.now(), BATCH);
  let settled = 0;
  for (const debt of owed) {
    const ageMs = deps.now() - debt.confirmedAtMs;
    if (!debt.stands || ageMs > NOTIFY_MAX_AGE_MS) {
      if (debt.stands) deps.log.error("trust.notification_given_up", { initiatorDid: debt.initiatorDid, ageMs });
      await settleNotification(deps.db, debt.confirmId);
      settled += 1;
    } else if (await notifyInitiator(deps, debt)) {
      settled += 1;
    } else {
      const waitMs = Math.min(RETRY_MAX_MS, RETRY_INITIAL_MS * 2 ** Math.min(debt.attempts, 20));
      await postponeNotification(deps.db, debt.confirmId, deps.now() + waitMs);
    }
  }
  return { settled, failed: owed.length - settled };
}

/** @throws Error when `work` takes longer */
async function withinMs<T>(limitMs: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
