/** The one-time hand-over of a new device token (contract §3, /v1/devices/claim). */
import type { AuditOutbox } from "../../audit/outbox.ts";
import type { Lockout } from "../../auth/limits/lockout.ts";
import type { AgentAuthority } from "../../authority/agent.ts";
import { type Device, newDeviceToken } from "../../authority/device/device.ts";
import type { Devices } from "../../authority/device/devices.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { ClaimProof } from "../protocol/calls.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { AccessValidations } from "./access-validations.ts";
import { DUMMY_KEY, hasProof, useProof } from "./device-proof.ts";
import { deviceRef } from "./device-token.ts";
import { failedGuess } from "./guesses.ts";
import type { Nonces } from "./nonces.ts";
import { countRequest, type Rate } from "./rate-limit.ts";

/** The stores by which a claim is judged and answered. */
export type ClaimStores = {
  self: AgentDid;
  commits: GroupCommit;
  authority: Pick<AgentAuthority, "isEnded">;
  devices: Pick<Devices, "findActive" | "claim">;
  nonces: Nonces;
  rate: Rate;
  accessValidations: Pick<AccessValidations, "ownerDid">;
  audit: Pick<AuditOutbox, "record">;
};

/** A new token, and whether it has ended one that was in force: the caller completes that end before it answers. */
export type HandedOver = { device: Device; token: string; expiresAtMs: number; hasEndedToken: boolean };

/**
 * The one-time hand-over of a new device token, made at this moment.
 *
 * @param stores null where this agent has no gate yet: a failure is counted there as everywhere
 * @throws GateRefusal: that no token waits is told only to a valid proof; anything else is the one refusal
 */
export async function claimDeviceToken(
  stores: ClaimStores | null,
  lockout: Lockout,
  claim: { deviceId: string; proof: ClaimProof; address: string | null; requestId: string; tokenTtlMs: number },
): Promise<HandedOver> {
  const known = stores?.devices.findActive(claim.deviceId) ?? null;
  const proven = await hasProof(known?.publicKey ?? DUMMY_KEY, claim.proof);
  const fresh = await newDeviceToken();
  if (stores === null || known === null || !proven) throw failedGuess(lockout, claim.address);
  const { self } = stores;
  const handedOver = await stores.commits.commit(() => {
    const nowMs = Date.now();
    const device = stores.devices.findActive(claim.deviceId);
    if (device === null || stores.authority.isEnded()) throw failedGuess(lockout, claim.address);
    useProof(stores.nonces, device.publicKey, claim.proof, nowMs);
    countRequest(stores.rate, { holder: `device:${device.deviceId}` }, nowMs);
    // No refusal, which would be undone: the proof is used up, or it could be shown again when there is a token.
    const mayReclaim = device.reclaimUntilMs !== null && nowMs < device.reclaimUntilMs;
    if (!device.tokenWaits && !mayReclaim) return null;
    const expiresAtMs = nowMs + claim.tokenTtlMs;
    const claimed = stores.devices.claim(device, { sha256: fresh.sha256, expiresAtMs });
    const { principal } = deviceRef(stores, claimed, expiresAtMs);
    stores.audit.record(
      {
        action: "device.token.claim",
        subject: `device:${self}/${claimed.deviceId}`,
        agentDid: self,
        result: "ok",
        details: { epoch: claimed.epoch },
      },
      { principal, origin: claim.address, requestId: claim.requestId },
      nowMs,
    );
    return { device: claimed, token: fresh.token, expiresAtMs, hasEndedToken: claimed.epoch !== device.epoch };
  });
  if (handedOver === null) throw new GateRefusal("gate-nothing-to-claim");
  return handedOver;
}
