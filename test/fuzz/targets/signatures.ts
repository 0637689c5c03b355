/** Proofs by HTTP Message Signatures: signed by another implementation, changed in one place, and judged by both. */
import * as fc from "fast-check";
import { appendSignature, createSignature, verifySignature, webcrypto } from "http-message-sig";
import { PROOF_V2_COMPONENTS, PROOF_V2_TAG, readProofV2, signatureBase } from "../../../src/wire/proof-v2.ts";
import { mutated } from "../arbitraries.ts";
import { must, target } from "../target.ts";

const pair = (await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"])) as CryptoKeyPair;
const CREATED = 1_795_348_800;
const URL_TEXT = "https://gate.example.com/hooks/agent?x=1";
const SENT = {
  authorization: "Claw a.b.c",
  "content-digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
  "content-type": "application/json",
  "x-claw-recipient-agent-did": "did:cdi:registry.example:agent:01ARZ3NDEKTSV4RRFFQ69G5FAV",
};
const COVERED = [...PROOF_V2_COMPONENTS, "content-type", "x-claw-recipient-agent-did"];

async function signed(): Promise<Headers> {
  const request = new Request(URL_TEXT, { method: "POST", headers: SENT });
  const fields = await createSignature(request, {
    label: "sig",
    components: COVERED,
    parameters: { tag: PROOF_V2_TAG, keyid: "k", nonce: "abc", expires: CREATED + 60, created: CREATED },
    signer: webcrypto.signer(pair.privateKey),
  });
  return appendSignature(request.headers, fields);
}

const RIGHT = Object.fromEntries(await signed());
const NAMES = ["signature-input", "signature", "content-digest", "authorization", "content-type"] as const;

type Change = { name: (typeof NAMES)[number]; value: string };

const change: fc.Arbitrary<Change | null> = fc.option(
  fc.constantFrom(...NAMES).chain((name) => mutated(fc.constant(RIGHT[name] ?? "")).map((value) => ({ name, value }))),
  { freq: 4 },
);

/** @returns whether the other implementation verifies the request */
async function verifiesElsewhere(headers: Headers): Promise<boolean> {
  try {
    await verifySignature(new Request(URL_TEXT, { method: "POST", headers }), {
      policy: {
        algorithms: ["ed25519"],
        requiredComponents: COVERED,
        requiredParameters: ["created", "expires", "nonce", "keyid", "tag"],
        now: CREATED,
      },
      resolveVerifier: () => webcrypto.verifier(pair.publicKey),
    });
    return true;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  }
}

async function verifiesHere(headers: Headers): Promise<boolean> {
  const read = readProofV2(headers);
  if (!read.ok || read.value === null) return false;
  const message = { method: "POST", pathWithQuery: "/hooks/agent?x=1", authority: "gate.example.com", headers };
  const base = signatureBase(message, read.value.components, read.value.signatureParams);
  return crypto.subtle.verify("Ed25519", pair.publicKey, read.value.signature, new TextEncoder().encode(base));
}

export const signatures = [
  target<Change | null>({
    name: "proofs by HTTP message signatures",
    weight: 2,
    acceptedAtLeast: 0.1,
    arbitrary: change,
    async holds(changed) {
      let headers: Headers;
      try {
        headers = new Headers({ ...RIGHT, ...(changed === null ? {} : { [changed.name]: changed.value }) });
      } catch (error) {
        // No HTTP library sends these.
        if (error instanceof TypeError) return false;
        throw error;
      }
      const here = await verifiesHere(headers);
      // The profile is closed, so it may refuse what the RFC takes; it never takes what the other refuses.
      if (here) must(await verifiesElsewhere(headers), "what is verified here is verified by http-message-sig");
      if (changed === null) must(here, "what nobody changed is verified");
      return here;
    },
  }),
];
