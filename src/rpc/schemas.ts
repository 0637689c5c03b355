/** Schemas of parameters and results that several methods share. Each says once what a value may be. */
import * as z from "zod/mini";
import { inOrder, type Scope, SCOPES } from "../authority/scopes.ts";
import { parsePublicKey } from "../identity/public-key.ts";
import { type AgentDid, type HumanDid, parseAgentDid, parseHumanDid } from "../wire/did.ts";

export { plainText } from "../wire/text.ts";

/** Longer than any DID: an authority has at most 253 characters. */
const DID_LENGTH_MAX = 320;

/** The DID of an agent. */
export const agentDid = z.string().check(
  z.maxLength(DID_LENGTH_MAX),
  z.refine((text: string) => parseAgentDid(text) !== null, "is no agent DID"),
) as unknown as z.ZodMiniType<AgentDid, string>;

/** The DID of a person. */
export const humanDid = z.string().check(
  z.maxLength(DID_LENGTH_MAX),
  z.refine((text: string) => parseHumanDid(text) !== null, "is no human DID"),
) as unknown as z.ZodMiniType<HumanDid, string>;

/** Milliseconds since 1970, or a number of them. */
export const timeMs = z.int().check(z.nonnegative());

/** A number of things, an epoch or a generation. */
export const count = z.int().check(z.nonnegative());

/** An Ed25519 public key, 32 bytes in base64url. */
export const publicKey = z.string().check(
  z.maxLength(64),
  z.refine((text: string) => parsePublicKey(text).ok, "is no usable Ed25519 public key, 32 bytes in base64url"),
);

/** Scopes, each once and in their one order. */
export const scopes = z.pipe(
  z.array(z.enum(SCOPES)).check(z.minLength(1), z.maxLength(SCOPES.length)),
  z.transform((list: Scope[]) => inOrder(list)),
);

/** How many sockets and calls an end has ended. */
export const fenced = z.object({ sockets: count, inFlight: count });

/** How many entries a page may have, at least 1. */
export function pageLimit(max: number) {
  return z.optional(z.int().check(z.minimum(1), z.maximum(max)));
}

/** The same behind a route, where a query string has digits. */
export function queryPageLimit(max: number) {
  return queryNumber(1, max);
}

/** A whole number behind a route, where a query string has digits. */
export function queryNumber(min: number, max: number) {
  const digits = z.pipe(z.string().check(z.regex(/^\d{1,6}$/)), z.transform(Number));
  return z.optional(z.pipe(z.union([z.number(), digits]), z.int().check(z.minimum(min), z.maximum(max))));
}

/** Where the page before ended; opaque to the caller. */
export function cursor(maxLength = 1_024) {
  return z.optional(z.string().check(z.maxLength(maxLength)));
}
