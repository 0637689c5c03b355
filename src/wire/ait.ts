/** The agent identity token, contract §1: its header, its claims and the rule that ties them to one authority. */
import * as z from "zod/mini";
import { decodeBase64Url } from "./base64url.ts";
import { type AgentDid, didAuthority, type HumanDid, parseAgentDid, parseHumanDid } from "./did.ts";
import { ED25519_PUBLIC_KEY_BYTES } from "./proof.ts";
import { err, ok, type Result } from "./result.ts";
import { plainText } from "./text.ts";
import { isUlid, type Ulid } from "./ulid.ts";
import { parseUrl } from "./url.ts";

/** An AIT longer than this is refused before it is parsed. */
export const MAX_AIT_BYTES = 8192;
/** `typ` of an AIT's header. */
export const AIT_TYPE = "AIT";

const CONTROL_CHARACTER = /\p{Cc}/u;
const NAME_PATTERN = /^[A-Za-z0-9._ -]{1,64}$/;
const KEY_ID_MAX_LENGTH = 256;

const boundedText = (maxLength: number) =>
  z.string().check(
    z.refine((text: string) => text.length <= maxLength, `is longer than ${maxLength} characters`),
    z.refine((text: string) => !CONTROL_CHARACTER.test(text), "has a control character"),
  );

const numericDate = z.int().check(z.nonnegative());

const headerSchema = z.object({
  alg: z.literal("EdDSA"),
  typ: z.literal(AIT_TYPE),
  kid: boundedText(KEY_ID_MAX_LENGTH).check(z.minLength(1)),
});

const claimsSchema = z.strictObject({
  iss: boundedText(2048).check(z.refine((iss: string) => issuerHost(iss) !== null, "is no http(s) URL")),
  sub: z.custom<AgentDid>((value) => typeof value === "string" && parseAgentDid(value) !== null, "is no agent DID"),
  ownerDid: z.custom<HumanDid>(
    (value) => typeof value === "string" && parseHumanDid(value) !== null,
    "is no human DID",
  ),
  name: z.string().check(z.regex(NAME_PATTERN)),
  framework: plainText(1, 32),
  description: z.optional(plainText(0, 280)),
  cnf: z.strictObject({
    jwk: z.strictObject({
      kty: z.literal("OKP"),
      crv: z.literal("Ed25519"),
      x: z
        .string()
        .check(
          z.refine(
            (x: string) => decodeBase64Url(x)?.length === ED25519_PUBLIC_KEY_BYTES,
            "is not base64url of 32 bytes",
          ),
        ),
    }),
  }),
  iat: numericDate,
  nbf: numericDate,
  exp: numericDate,
  jti: z.custom<Ulid>((value) => typeof value === "string" && isUlid(value), "is no ULID"),
});

/** The header of an AIT. */
export type AitHeader = z.infer<typeof headerSchema>;
/** The claims of an AIT: well-formed and of one authority; whether they are signed is another question. */
export type AitClaims = z.infer<typeof claimsSchema>;

/**
 * @param value the decoded JOSE header
 * @returns the header, or which member is wrong (never its value)
 */
export function parseAitHeader(value: unknown): Result<AitHeader, string> {
  const parsed = headerSchema.safeParse(value);
  if (!parsed.success) return err(describeIssue(parsed.error));
  // RFC 7515 §4.1.11: an extension marked critical must be understood, and none is.
  if (typeof value === "object" && value !== null && "crit" in value) return err("crit: no extension is understood");
  return ok(parsed.data);
}

/**
 * @param value the decoded claims
 * @returns the claims, or which one is wrong (never its value). Times are not compared with a clock here,
 *          and `iss` is not compared with `REGISTRY_ISSUER`.
 */
export function parseAitClaims(value: unknown): Result<AitClaims, string> {
  const parsed = claimsSchema.safeParse(value);
  if (!parsed.success) return err(describeIssue(parsed.error));
  const claims = parsed.data;
  if (claims.exp <= claims.nbf) return err("exp: is not after nbf");
  if (claims.exp <= claims.iat) return err("exp: is not after iat");
  const authority = issuerHost(claims.iss);
  if (didAuthority(claims.sub) !== authority) return err("sub: is of another authority than iss");
  if (didAuthority(claims.ownerDid) !== authority) return err("ownerDid: is of another authority than iss");
  return ok(claims);
}

/**
 * @param issuer an `iss`
 * @returns the host name that its DIDs carry as authority, or null when it is no http(s) URL
 */
export function issuerHost(issuer: string): string | null {
  if (!/^https?:\/\//.test(issuer)) return null;
  const url = parseUrl(issuer);
  return url === null || url.hostname === "" ? null : url.hostname;
}

function describeIssue(error: z.core.$ZodError): string {
  const issue = error.issues[0];
  if (issue === undefined) return "malformed";
  const where = issue.path.length === 0 ? "document" : issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") return `${where}: a member that is not allowed`;
  return `${where}: ${issue.message}`;
}
