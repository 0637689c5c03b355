/**
 * `sallyport/wire`: the wire itself, for those who write a client or a server of their own: names (DID), identity tokens (AIT),
 * proofs of both versions, and the frames of the relay. Nothing here reads a clock or makes a request. docs/protocol.md.
 *
 * @module
 */
export { parseAitClaims } from "./ait.ts";
export * from "./base64url.ts";
export * from "./did.ts";
export * from "./frame-encoder.ts";
export * from "./frames.ts";
export * from "./json-text.ts";
export * from "./jws.ts";
export * from "./proof.ts";
export * from "./proof-v2.ts";
export * from "./relay-close.ts";
export type { Result } from "./result.ts";
export * from "./ulid.ts";
