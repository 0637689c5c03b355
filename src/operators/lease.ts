/**
 * What a call of an operator's key runs under. A key may be used at every gate, so no single place knows all of its calls in
 * flight. Each call therefore holds a lease: it has read at the primary, a moment ago, that the key is in force, reads it again
 * while it runs, and may do nothing once its last reading is older than the lease. `operator/revoke` answers when every lease that
 * was read before it is over. In D1 the batches of such a call are fenced besides, as everybody's are.
 */
import type { Authority } from "../authority/authority.ts";
import { operatorAuthority, type OperatorPrincipal } from "../authority/operator.ts";
import { ProxyError } from "../wire/problem.ts";
import { isOperatorInForce } from "./store.ts";

/** From the moment before a reading: an effect of the call is not begun later. */
export const LEASE_MS = 1_500;
const RENEW_EVERY_MS = 500;
/** An effect that was begun within its lease is committed within this. */
const COMMIT_MS = 500;
/** After the commit of a revocation no lease is left when this has passed. */
export const LEASES_OVER_MS = LEASE_MS + COMMIT_MS;

export type LeaseDeps = {
  db: D1Database;
  now: () => number;
  /** Whether a key is in force; the default reads D1 at the primary. */
  isInForce?: (operatorId: string, nowMs: number) => Promise<boolean>;
};

/** Nothing ends it while a call runs: `OPERATOR_TOKEN`, whom Cloudflare Access vouches for, an invite, whose row its commit looks at. */
export const UNENDED: Authority = { assertCurrent: () => {}, fence: () => [], revokedItself: () => {} };

/**
 * Runs a call under an operator's authority.
 *
 * @throws ProxyError PROXY_AUTH_REVOKED where the key has ended, PROXY_AUTH_DEPENDENCY_UNAVAILABLE where D1 cannot say;
 *         else what `run` throws
 */
export async function underOperator<T>(
  principal: OperatorPrincipal,
  deps: LeaseDeps,
  run: (authority: Authority) => Promise<T>,
): Promise<T> {
  if (!principal.isRevocable || principal.id === null) return run(UNENDED);
  const lease = createLease(principal.id, deps);
  try {
    await lease.read();
    lease.authority.assertCurrent();
    return await run(lease.authority);
  } finally {
    lease.end();
  }
}

function createLease(
  operatorId: string,
  { db, now, isInForce = (id, nowMs) => isOperatorInForce(db, id, nowMs) }: LeaseDeps,
) {
  let untilMs = 0;
  let hasEnded = false;
  let hasEndedItself = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const read = async (): Promise<void> => {
    const startedMs = now();
    if (await isInForce(operatorId, startedMs)) untilMs = startedMs + LEASE_MS;
    else hasEnded = true;
    renewLater();
  };
  const renewLater = (): void => {
    clearTimeout(timer);
    if (hasEnded) return;
    // A reading that fails leaves the lease as it is: it runs out, and the call with it.
    timer = setTimeout(() => void read().catch(renewLater), RENEW_EVERY_MS);
  };

  const authority: Authority = {
    assertCurrent() {
      if (hasEndedItself) return;
      if (hasEnded) throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the operator's key has ended" });
      if (now() < untilMs) return;
      throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
        reason: "whether the operator's key still holds could not be read in time",
        retryAfterMs: 1_000,
      });
    },
    fence: () => [{ authority: operatorAuthority(operatorId), epoch: hasEndedItself ? 1 : 0 }],
    revokedItself() {
      hasEndedItself = true;
    },
  };
  return {
    authority,
    read,
    end() {
      hasEnded = true;
      clearTimeout(timer);
    },
  };
}
