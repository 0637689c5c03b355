/** A small body that is sent with a proof by somebody whom no credential names yet. */
import type { Context } from "hono";
import { readRequestBody } from "../auth/body.ts";
import { provenRequest } from "../auth/chain.ts";
import { checkBodyHash, type ProofForm, readProof } from "../auth/proof.ts";
import { type Refusal, refusalError } from "../auth/reasons.ts";
import { type BodyLimits, discardBody } from "../resilience/bounded-body.ts";
import { ProxyError } from "../wire/problem.ts";
import { sha256Base64Url } from "../wire/proof.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

/** What a route makes of such a body. */
export type ProvenBodyReader<T> = {
  readonly limits: BodyLimits;
  /** @throws ProxyError for what is not of the route's form */
  readonly parse: (bytes: Uint8Array) => T;
  /** The answer to a proof that is none, or that is another body's. */
  readonly refused: (why: Refusal) => ProxyError;
};

/**
 * Cheap before dear: the proof's headers, then a small body, its hash, and only then what it says. The signature is not verified
 * here: whose key that takes stands in the body.
 *
 * @throws ProxyError
 */
export async function readProvenBody<T>(
  c: Context<HttpEnv>,
  { limits, parse, refused }: ProvenBodyReader<T>,
): Promise<{ params: T; proof: ProofForm }> {
  const { config, bodies } = c.get("runtime");
  const { skewMaxSeconds, proofV1, publicAuthorities } = config;
  const rules = { nowMs: Date.now(), skewMaxSeconds, proofV1 };
  const proof = readProof(provenRequest(c.req.raw, publicAuthorities), rules);
  if (!proof.ok) {
    await discardBody(c.req.raw.body);
    throw refused(proof.error);
  }
  const from = { address: c.get("address"), budget: bodies, now: Date.now };
  const body = await readRequestBody(c.req.raw, from, limits);
  if (!body.ok) {
    await discardBody(c.req.raw.body);
    if (body.error.reason !== "body-too-large") throw refusalError(body.error);
    throw new ProxyError("PROXY_BODY_TOO_LARGE", {
      detail: `The body may have at most ${limits.maxBytes / 1_024} KiB.`,
    });
  }
  const { bytes, share } = body.value;
  try {
    const hashed = checkBodyHash(proof.value, await sha256Base64Url(bytes));
    if (!hashed.ok) throw refused(hashed.error);
    return { params: parse(bytes), proof: proof.value };
  } finally {
    share.release();
  }
}
