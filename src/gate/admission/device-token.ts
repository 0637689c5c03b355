/** Credentials that only the gate can judge, since it holds their hashes: device tokens, shared secrets, and the claim of a new token. */
import type { Credential } from "../../auth/credential.ts";
import type { ProofForm, SignedRequest } from "../../auth/proof.ts";
import type { Principal } from "../../rpc/method.ts";
import type { AgentDid, HumanDid } from "../../wire/did.ts";
import { decodeBase64Url } from "../../wire/base64url.ts";
import { importEd25519PublicKey, verifyProof } from "../../wire/proof.ts";
import { GateRefusal } from "./agent.ts";
import type { AuthorityRef } from "../../authority/agent.ts";
import type { Device } from "../../authority/devices.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { House } from "../state.ts";
import { newDeviceToken } from "../../authority/devices.ts";
import { sameHash } from "../../authority/secrets.ts";

/** The base point, which could be somebody's key: an unknown token costs what a known one costs. */
const NOBODYS_KEY = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY";
const NO_HASH = "A".repeat(43);

export type GateCredential = Extract<Credential, { agentDid: AgentDid }>;
export type ClaimProof = ProofForm & SignedRequest;

/** What a device proves, whoever it is. */
async function hasProof(publicKey: string, proof: ClaimProof): Promise<boolean> {
  const x = decodeBase64Url(publicKey);
  if (x === null) throw new Error("a stored device key is unreadable");
  const { method, pathWithQuery, timestamp, nonce, bodySha256, signature } = proof;
  return verifyProof(
    await importEd25519PublicKey(x),
    { method, pathWithQuery, timestamp, nonce, bodySha256 },
    signature,
  );
}

/**
 * Admits a request under a device token or a shared secret: nonce, rate and last use in one commit.
 *
 * @param house null where this agent has no gate yet: nothing is written, and the refusal costs the same
 * @throws GateRefusal; a failure says no more than that the credential is not accepted
 */
export async function admitCredential(
  open: { house: House; commits: GroupCommit } | null,
  self: AgentDid,
  credential: GateCredential,
  address: string | null,
): Promise<AuthorityRef> {
  return credential.kind === "device"
    ? admitDevice(open, self, credential)
    : admitShared(open, self, credential, address);
}

async function admitDevice(
  open: { house: House; commits: GroupCommit } | null,
  self: AgentDid,
  { tokenHash, proof }: Extract<GateCredential, { kind: "device" }>,
): Promise<AuthorityRef> {
  const found = open?.house.devices.byToken(tokenHash) ?? null;
  const proven = await hasProof(found?.device.publicKey ?? NOBODYS_KEY, proof);
  if (open === null || found === null || !proven) throw new GateRefusal("gate-credential-refused");
  const { house, commits } = open;
  return commits.commit(() => {
    const nowMs = Date.now();
    // Looked up again: the token may have been ended while its proof was verified.
    const current = house.devices.byToken(tokenHash);
    if (current === null || house.authority.isEnded()) throw new GateRefusal("gate-credential-refused");
    if (!current.inForce) throw new GateRefusal("gate-client-invalidated");
    const { device } = current;
    if (device.tokenExpiresAtMs === null || device.tokenExpiresAtMs <= nowMs)
      throw new GateRefusal("gate-credential-refused");
    useProof(house, device.publicKey, proof, nowMs);
    countRequest(house, nowMs);
    house.devices.used(device, nowMs);
    return deviceRef(house, self, device, device.tokenExpiresAtMs);
  });
}

function deviceRef(house: House, agentDid: AgentDid, device: Device, expMs: number): AuthorityRef {
  const { deviceId, scopes, epoch } = device;
  const ownerDid = house.acquaintance.ownerDid() as HumanDid | null;
  return {
    kind: "device",
    epoch,
    expMs,
    principal: { kind: "device", agentDid, ownerDid, deviceId, scopes, epoch, expMs },
  };
}

async function admitShared(
  open: { house: House; commits: GroupCommit } | null,
  self: AgentDid,
  { secretHash }: Extract<GateCredential, { kind: "shared" }>,
  address: string | null,
): Promise<AuthorityRef> {
  const matches = sameHash(open?.house.shared.sha256() ?? NO_HASH, secretHash);
  if (open === null) throw new GateRefusal("gate-credential-refused");
  const { house, commits } = open;
  if (!matches || house.authority.isEnded()) throw failed(house, address);
  return commits.commit(() => {
    const nowMs = Date.now();
    // Compared again: the secret may have been replaced since, and whoever knew the old one is not let in under the new.
    const stillMatches = sameHash(house.shared.sha256() ?? NO_HASH, secretHash);
    if (!stillMatches || house.authority.isEnded()) throw new GateRefusal("gate-credential-refused");
    countRequest(house, nowMs);
    const generation = house.shared.generation();
    return {
      kind: "shared",
      epoch: generation,
      expMs: null,
      principal: { kind: "shared", agentDid: self, generation },
    };
  });
}

/** An API key as D1 holds it; plain data, so that it can cross to the gate. */
export type ApiKeyGrant = {
  principal: Extract<Principal, { kind: "apiKey" }>;
  generation: number;
  expMs: number | null;
};

/**
 * Admits a request under an API key that the Worker has just read from D1.
 *
 * @throws GateRefusal where the key has been ended since
 */
export async function admitApiKey(
  { house, commits }: { house: House; commits: GroupCommit },
  key: ApiKeyGrant,
): Promise<AuthorityRef> {
  const ref: AuthorityRef = { kind: "apiKey", epoch: 0, ...key };
  return commits.commit(() => {
    if (house.whyEnded(ref) !== null) throw new GateRefusal("gate-credential-refused");
    countRequest(house, Date.now());
    return ref;
  });
}

/**
 * The one-time hand-over of a new device token, made at this moment.
 *
 * @throws GateRefusal: that no token waits is told only to a valid proof; anything else is the one refusal
 */
export async function claimDeviceToken(
  open: { house: House; commits: GroupCommit } | null,
  self: AgentDid,
  claim: { deviceId: string; proof: ClaimProof; address: string | null; requestId: string; tokenTtlMs: number },
): Promise<{ device: Device; token: string; expiresAtMs: number }> {
  const known = open?.house.devices.findActive(claim.deviceId) ?? null;
  const proven = await hasProof(known?.publicKey ?? NOBODYS_KEY, claim.proof);
  const fresh = await newDeviceToken();
  if (open === null) throw new GateRefusal("gate-credential-refused");
  const { house, commits } = open;
  if (known === null || !proven) throw failed(house, claim.address);
  const handedOver = await commits.commit(() => {
    const nowMs = Date.now();
    const device = house.devices.findActive(claim.deviceId);
    if (device === null || house.authority.isEnded()) throw failed(house, claim.address);
    useProof(house, device.publicKey, claim.proof, nowMs);
    countRequest(house, nowMs);
    // No refusal, which would be undone: the proof is used up, or it could be shown again when there is a token.
    if (!device.tokenWaits) return null;
    const expiresAtMs = nowMs + claim.tokenTtlMs;
    const claimed = house.devices.claim(device, { sha256: fresh.sha256, expiresAtMs });
    const { principal } = deviceRef(house, self, claimed, expiresAtMs);
    house.audit.record(
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
    return { device: claimed, token: fresh.token, expiresAtMs };
  });
  if (handedOver === null) throw new GateRefusal("gate-nothing-to-claim");
  return handedOver;
}

function failed(house: House, address: string | null): GateRefusal {
  const lockedMs = house.lockout.failed(address, Date.now());
  return lockedMs > 0 ? new GateRefusal("gate-address-locked", lockedMs) : new GateRefusal("gate-credential-refused");
}

function useProof(house: House, keyX: string, proof: ClaimProof, nowMs: number): void {
  switch (house.admission.nonces.use(keyX, proof.nonce, proof.timestampMs / 1_000, nowMs)) {
    case "fresh":
      return;
    case "seen":
      throw new GateRefusal("gate-nonce-replayed");
    case "pruned":
      throw new GateRefusal("gate-nonce-too-old");
    case "outside-window":
      throw new GateRefusal("gate-timestamp-skewed");
  }
}

function countRequest(house: House, nowMs: number): void {
  const waitMs = house.rate.waitMs(nowMs);
  if (waitMs > 0) throw new GateRefusal("gate-rate-exceeded", waitMs);
  house.rate.count(nowMs);
}

/**
 * Counts a call of a batch after its first, as a frame is counted: a batch saves requests, not what they may ask for.
 *
 * @returns why it may not be made now, or null
 */
export function countFurtherCall(house: House, nowMs: number): GateRefusal["refusal"] | null {
  const waitMs = house.rate.waitMs(nowMs);
  if (waitMs > 0) return new GateRefusal("gate-rate-exceeded", waitMs).refusal;
  house.rate.count(nowMs);
  return null;
}
