/**
 * Which credential a request carries (contract §2). Of a device token, a shared secret and an API key only the form is
 * judged here: the gate that holds their hashes decides. The operator's token is compared here, in constant time.
 */
import { SECRET_PREFIXES } from "../authority/secrets.ts";
import { encodeBase64Url } from "../wire/base64url.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type ProofForm, type ProofRules, type ProvenRequest, readProof } from "./proof.ts";
import { type Refusal, refusal } from "./reasons.ts";

export const AGENT_DID_HEADER = "X-Claw-Agent-Did";

export type CredentialKind = "agent" | "device" | "shared" | "apiKey" | "operator";

/** What a gate decides on: hashes are base64url of the SHA-256 of the whole secret, prefix included. */
export type Credential =
  | {
      readonly kind: "device";
      readonly agentDid: AgentDid;
      readonly tokenHash: string;
      readonly proof: ProofForm;
    }
  | { readonly kind: "shared"; readonly agentDid: AgentDid; readonly secretHash: string }
  | { readonly kind: "apiKey"; readonly keyHash: string }
  /** Its row decides, and not a gate. */
  | { readonly kind: "operatorKey"; readonly keyHash: string };

/** An `Authorization` header by its scheme; of a token nothing is judged but its length. */
export type Authorization =
  | { readonly scheme: "claw"; readonly ait: string }
  | { readonly scheme: "device" | "shared" | "bearer"; readonly secret: string };

/** The form of a credential that is not an agent's, before anything is hashed. */
export type CredentialForm =
  | { readonly kind: "device"; readonly agentDid: AgentDid; readonly secret: string; readonly proof: ProofForm }
  | { readonly kind: "shared"; readonly agentDid: AgentDid; readonly secret: string }
  | { readonly kind: "apiKey"; readonly secret: string }
  | { readonly kind: "operator"; readonly secret: string }
  /** What Cloudflare Access says of a person. */
  | { readonly kind: "access"; readonly assertion: string };

/** One that is a secret. */
export type SecretForm = Exclude<CredentialForm, { kind: "access" }>;

const SECRET_BODY_PATTERN = /^[A-Za-z0-9_-]{43}$/;
const SECRET_MAX_LENGTH = 1_024;
const textEncoder = new TextEncoder();

/** RFC 9110 §11.4: scheme, space, credentials; the scheme in any case. */
export function readAuthorization(headers: Headers): Result<Authorization, Refusal> {
  const header = headers.get("Authorization");
  if (header === null || header === "") return err(refusal("authorization-missing"));
  const space = header.indexOf(" ");
  const scheme = (space === -1 ? header : header.slice(0, space)).toLowerCase();
  const rest = space === -1 ? "" : header.slice(space + 1).trimStart();
  switch (scheme) {
    case "claw":
      return ok({ scheme, ait: rest });
    case "device":
    case "shared":
    case "bearer":
      return rest.length > 0 && rest.length <= SECRET_MAX_LENGTH
        ? ok({ scheme, secret: rest })
        : err(refusal("credential-malformed"));
    default:
      return err(refusal("scheme-unknown"));
  }
}

/** The form of a secret and of what must come with it. */
export function readCredential(
  authorization: Extract<Authorization, { secret: string }>,
  request: ProvenRequest,
  rules: ProofRules,
): Result<SecretForm, Refusal> {
  const { scheme, secret } = authorization;
  switch (scheme) {
    case "bearer":
      return ok({ kind: hasForm(secret, SECRET_PREFIXES.apiKey) ? "apiKey" : "operator", secret });
    case "shared": {
      if (!hasForm(secret, SECRET_PREFIXES.shared)) return err(refusal("credential-malformed"));
      const agentDid = readAgentDid(request.headers);
      return agentDid.ok ? ok({ kind: "shared", agentDid: agentDid.value, secret }) : agentDid;
    }
    case "device": {
      if (!hasForm(secret, SECRET_PREFIXES.device)) return err(refusal("credential-malformed"));
      const agentDid = readAgentDid(request.headers);
      if (!agentDid.ok) return agentDid;
      const proof = readProof(request, rules);
      return proof.ok ? ok({ kind: "device", agentDid: agentDid.value, secret, proof: proof.value }) : proof;
    }
  }
}

/** Hashes the secret, so that from here on nobody holds it. */
export async function sealCredential(form: SecretForm): Promise<Credential> {
  const hash = encodeBase64Url(new Uint8Array(await sha256(form.secret)));
  switch (form.kind) {
    case "device":
      return { kind: "device", agentDid: form.agentDid, tokenHash: hash, proof: form.proof };
    case "shared":
      return { kind: "shared", agentDid: form.agentDid, secretHash: hash };
    case "apiKey":
      return { kind: "apiKey", keyHash: hash };
    case "operator":
      return { kind: "operatorKey", keyHash: hash };
  }
}

export type OperatorTokens = {
  /** Compares hashes in constant time, with every token whatever the first says. */
  matches(secret: string): Promise<boolean>;
};

/** @param tokens `OPERATOR_TOKEN` and `OPERATOR_TOKEN_NEXT` */
export function createOperatorTokens(tokens: readonly string[]): OperatorTokens {
  // The values and never their promises: a request cannot wait on another's.
  let known: readonly ArrayBuffer[] | null = null;
  return {
    async matches(secret) {
      known ??= await Promise.all(tokens.map(sha256));
      const presented = await sha256(secret);
      let found = false;
      for (const hash of known) found = crypto.subtle.timingSafeEqual(hash, presented) || found;
      return found;
    },
  };
}

/** @returns whether a bearer could be an operator's key; whether there is such a key is another question */
export function isOperatorKey(secret: string): boolean {
  return hasForm(secret, SECRET_PREFIXES.operator);
}

function hasForm(secret: string, prefix: string): boolean {
  return secret.startsWith(prefix) && SECRET_BODY_PATTERN.test(secret.slice(prefix.length));
}

function readAgentDid(headers: Headers): Result<AgentDid, Refusal> {
  const agentDid = parseAgentDid(headers.get(AGENT_DID_HEADER) ?? "");
  return agentDid === null ? err(refusal("credential-agent-missing")) : ok(agentDid);
}

function sha256(text: string): Promise<ArrayBuffer> {
  return crypto.subtle.digest("SHA-256", textEncoder.encode(text));
}
