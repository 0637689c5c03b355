/** Admission of a device token, whose hash only the gate holds. */
import type { AgentAuthority } from "../../authority/agent.ts";
import type { Device } from "../../authority/device/device.ts";
import type { Devices } from "../../authority/device/devices.ts";
import { holderOf } from "../../authority/holder.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { AgentDid, HumanDid } from "../../wire/did.ts";
import type { GateCredential } from "../protocol/calls.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { AccessValidations } from "./access-validations.ts";
import { DUMMY_KEY, hasProof, useProof } from "./device-proof.ts";
import type { Nonces } from "./nonces.ts";
import { countRequest, type Rate } from "./rate-limit.ts";

/** The stores by which a device is judged. */
export type DeviceAdmissionStores = {
  self: AgentDid;
  commits: GroupCommit;
  authority: Pick<AgentAuthority, "isEnded">;
  devices: Pick<Devices, "byToken" | "used">;
  nonces: Nonces;
  rate: Rate;
  accessValidations: Pick<AccessValidations, "ownerDid">;
};

/**
 * Admits a request under a device token: nonce, rate and last use in one commit.
 *
 * @param stores null where this agent has no gate yet: nothing is written, and the refusal costs the same
 * @param endsAuthority whether the request is a call that ends an authority, for which the rate has a reserve
 * @throws GateRefusal; a failure says no more than that the credential is not accepted
 */
export async function admitDeviceToken(
  stores: DeviceAdmissionStores | null,
  { tokenHash, proof }: Extract<GateCredential, { kind: "device" }>,
  endsAuthority = false,
): Promise<AuthorityRef> {
  const found = stores?.devices.byToken(tokenHash) ?? null;
  const proven = await hasProof(found?.device.publicKey ?? DUMMY_KEY, proof);
  if (stores === null || found === null || !proven) throw new GateRefusal("gate-credential-refused");
  return stores.commits.commit(() => {
    const nowMs = Date.now();
    // Looked up again: the token may have been ended while its proof was verified.
    const current = stores.devices.byToken(tokenHash);
    if (current === null || stores.authority.isEnded()) throw new GateRefusal("gate-credential-refused");
    if (!current.inForce) throw new GateRefusal("gate-client-invalidated");
    const { device } = current;
    if (device.tokenExpiresAtMs === null || device.tokenExpiresAtMs <= nowMs)
      throw new GateRefusal("gate-credential-refused");
    useProof(stores.nonces, device.publicKey, proof, nowMs);
    const ref = deviceRef(stores, device, device.tokenExpiresAtMs);
    countRequest(stores.rate, { holder: holderOf(ref.principal), endsAuthority }, nowMs);
    stores.devices.used(device, nowMs);
    return ref;
  });
}

/** @returns the authority of a device at its present epoch, until its token ends. @param expMs milliseconds since the epoch */
export function deviceRef(
  { self: agentDid, accessValidations }: Pick<DeviceAdmissionStores, "self" | "accessValidations">,
  device: Device,
  expMs: number,
): AuthorityRef {
  const { deviceId, scopes, epoch } = device;
  const ownerDid = accessValidations.ownerDid() as HumanDid | null;
  return {
    kind: "device",
    epoch,
    expMs,
    principal: { kind: "device", agentDid, ownerDid, deviceId, scopes, epoch, expMs },
  };
}
