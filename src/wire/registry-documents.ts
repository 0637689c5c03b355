/** What a registry publishes and answers, contract §1: keys, revocations, access validation. */
import * as z from "zod/mini";
import { decodeBase64Url } from "./base64url.ts";
import { type AgentDid, parseAgentDid } from "./did.ts";
import { ED25519_PUBLIC_KEY_BYTES } from "./proof.ts";
import { err, ok, type Result } from "./result.ts";

/** Where a registry publishes its keys. */
export const KEYS_PATH = "/.well-known/claw-keys.json";
/** Where a registry publishes its revocation list. */
export const CRL_PATH = "/v1/crl";
/** Where a registry judges an access token. */
export const ACCESS_VALIDATE_PATH = "/v1/agents/auth/validate";
/** How far ahead of this clock `nbf` and `iat` of tokens and lists may be, in seconds; `exp` gets no leeway. Contract §1. */
export const CLOCK_LEEWAY_SECONDS = 60;
/** Header that carries an agent's access token, to the registry and to this proxy. */
export const ACCESS_HEADER = "X-Claw-Agent-Access";
/** `typ` of a revocation list's header. */
export const CRL_TYPE = "CRL";
/** Code of the 404 that means "no revocation list yet". */
export const CRL_NOT_FOUND = "CRL_NOT_FOUND";

const agentDid = z.custom<AgentDid>(
  (value) => typeof value === "string" && parseAgentDid(value) !== null,
  "is no agent DID",
);
const shortText = z.string().check(
  z.minLength(1),
  z.maxLength(256),
  z.refine((text: string) => !/\p{Cc}/u.test(text), "has a control character"),
);
const numericDate = z.int().check(z.nonnegative());

const keySchema = z.object({
  kid: shortText,
  alg: z.literal("EdDSA"),
  crv: z.literal("Ed25519"),
  x: z
    .string()
    .check(
      z.refine((x: string) => decodeBase64Url(x)?.length === ED25519_PUBLIC_KEY_BYTES, "is not base64url of 32 bytes"),
    ),
  status: z.enum(["active", "revoked"]),
});

/** A signing key of a registry. */
export type RegistryKey = z.infer<typeof keySchema>;

/** A keys document that may be used; `malformed` entries are left out and belong into the log. */
export type KeysDocument = {
  readonly keys: readonly RegistryKey[];
  readonly malformed: readonly { readonly index: number; readonly problem: string }[];
};

/**
 * @param value the parsed body of `GET /.well-known/claw-keys.json`
 * @returns the well-formed keys and the entries that were left out; an error for a document that is no such
 *          document or holds a `kid` twice, malformed entries included
 */
export function parseKeysDocument(value: unknown): Result<KeysDocument, string> {
  const document = z.object({ keys: z.array(z.unknown()) }).safeParse(value);
  if (!document.success) return err("is no keys document");
  const keys: RegistryKey[] = [];
  const malformed: { index: number; problem: string }[] = [];
  const kids = new Set<string>();
  for (const [index, entry] of document.data.keys.entries()) {
    const kid = typeof entry === "object" && entry !== null && "kid" in entry ? entry.kid : undefined;
    if (typeof kid === "string") {
      if (kids.has(kid)) return err(`has a kid twice, the second time in entry ${index}`);
      kids.add(kid);
    }
    const key = keySchema.safeParse(entry);
    if (key.success) keys.push(key.data);
    else malformed.push({ index, problem: describe(key.error) });
  }
  return ok({ keys, malformed });
}

const crlBodySchema = z.object({ crl: z.string().check(z.minLength(1)) });

/** @returns the compact JWS out of the body of `GET /v1/crl`. */
export function parseCrlBody(value: unknown): Result<string, string> {
  const body = crlBodySchema.safeParse(value);
  return body.success ? ok(body.data.crl) : err("is no revocation list");
}

const crlHeaderSchema = z.object({ alg: z.literal("EdDSA"), typ: z.literal(CRL_TYPE), kid: shortText });

/** @returns the header of a revocation list's JWS, or which member is wrong. */
export function parseCrlHeader(value: unknown): Result<z.infer<typeof crlHeaderSchema>, string> {
  const header = crlHeaderSchema.safeParse(value);
  return header.success ? ok(header.data) : err(describe(header.error));
}

const crlClaimsSchema = z.object({
  iss: z.string().check(z.minLength(1)),
  jti: shortText,
  iat: numericDate,
  exp: numericDate,
  revocations: z.array(z.object({ jti: shortText, agentDid, reason: z.optional(z.string()), revokedAt: numericDate })),
});

/** The claims of a revocation list; `iat` and `exp` in seconds, `revokedAt` as its registry counts. */
export type CrlClaims = z.infer<typeof crlClaimsSchema>;

/**
 * @param value the claims of a verified JWS
 * @returns the list; one malformed entry refuses it whole, since nobody can say whom it was to end
 */
export function parseCrlClaims(value: unknown): Result<CrlClaims, string> {
  const claims = crlClaimsSchema.safeParse(value);
  if (!claims.success) return err(describe(claims.error));
  if (claims.data.exp <= claims.data.iat) return err("exp: is not after iat");
  return ok(claims.data);
}

const accessValidationSchema = z.object({ agentDid, aitJti: shortText });

/** Body of `POST /v1/agents/auth/validate`; the token itself stands in {@link ACCESS_HEADER}. */
export type AccessValidationBody = z.infer<typeof accessValidationSchema>;

/** @returns the body of an access validation, or which member is wrong. */
export function parseAccessValidationBody(value: unknown): Result<AccessValidationBody, string> {
  const body = accessValidationSchema.safeParse(value);
  return body.success ? ok(body.data) : err(describe(body.error));
}

/** @returns what a registry's status says of an access token; a failure is no verdict. */
export function accessVerdict(status: number): "valid" | "invalid" | "failure" {
  if (status === 204) return "valid";
  return status === 401 ? "invalid" : "failure";
}

function describe(error: z.core.$ZodError): string {
  const issue = error.issues[0];
  if (issue === undefined) return "malformed";
  return issue.path.length === 0 ? issue.message : `${issue.path.map(String).join(".")}: ${issue.message}`;
}
