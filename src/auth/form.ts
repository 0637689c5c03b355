/** The form of everything that a caller's headers say, cheapest first, before anything is fetched or hashed. */
import { didAuthority } from "../wire/did.ts";
import { ACCESS_HEADER } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { ACCESS_ASSERTION_HEADER, ASSERTION_MAX_LENGTH } from "./access-assertion.ts";
import { readAccessToken } from "./access.ts";
import {
  type Authorization,
  type CredentialForm,
  type CredentialKind,
  readAuthorization,
  readCredential,
} from "./credential.ts";
import type { Decision } from "./decision.ts";
import { type ProofForm, type ProvenRequest, readProof } from "./proof.ts";
import { type Refusal, refusal } from "./reasons.ts";
import { readAit, type TokenMemory, type UnverifiedAit, type VerifiedAit } from "./token.ts";
import { type Addressee, readAddressee } from "./trust.ts";

/** What a route asks of its callers. */
export type RouteNeeds = {
  /** Name of the route in the log. */
  readonly route: string;
  readonly accepts: readonly CredentialKind[];
  /** Whether an agent also shows its access token; `if-sent`: it may, and one that is sent is judged. */
  readonly access: boolean | "if-sent";
  /** The request is a send to the agent, or in the group, that its headers name. */
  readonly recipient: boolean;
};

/** `POST /hooks/agent`: all six stages. */
export const HOOK: RouteNeeds = { route: "hooks.agent", accepts: ["agent"], access: true, recipient: true };

/** An agent's request in a form that could be right. */
export type AgentForm = {
  readonly kind: "agent";
  /** Verified where this isolate remembers it. */
  readonly ait: UnverifiedAit | VerifiedAit;
  readonly token: string;
  readonly proof: ProofForm;
  readonly access: string | null;
  /** Null where the route is no send. */
  readonly addressee: Addressee | null;
};

export type FormDeps = {
  readonly tokens: TokenMemory;
  readonly settings: {
    readonly registryIssuer: string;
    /** Host name of the issuer: the authority of every agent that this installation knows. */
    readonly registryAuthority: string;
    readonly skewMaxSeconds: number;
    readonly proofV1: "accept" | "refuse";
    /** Whether assertions of Cloudflare Access count. */
    readonly takesAssertions: boolean;
  };
  readonly nowMs: number;
};

/** @param decision records who claims to call, and by how much the clocks differ */
export function readForm(
  request: ProvenRequest,
  needs: RouteNeeds,
  deps: FormDeps,
  decision: Decision,
): Result<AgentForm | CredentialForm, Refusal> {
  const authorization = readAuthorization(request.headers);
  if (!authorization.ok) {
    const assertion =
      authorization.error.reason === "authorization-missing" ? readAssertion(request, needs, deps) : null;
    if (assertion === null) return authorization;
    decision.credential = "operator";
    return assertion;
  }
  if (!takesScheme(needs.accepts, authorization.value.scheme)) return err(refusal("scheme-not-for-this-route"));
  if (authorization.value.scheme === "claw") {
    decision.credential = "agent";
    return readAgentForm(authorization.value.ait, request, needs, deps, decision);
  }

  const { skewMaxSeconds, proofV1 } = deps.settings;
  const form = readCredential(authorization.value, request, { nowMs: deps.nowMs, skewMaxSeconds, proofV1 });
  if (!form.ok) return form;
  decision.credential = form.value.kind;
  if ("agentDid" in form.value) {
    decision.agentDid = form.value.agentDid;
    // Whoever is of another authority is nobody here: no gate is woken to say so.
    if (didAuthority(form.value.agentDid) !== deps.settings.registryAuthority) {
      return err(refusal("credential-agent-foreign"));
    }
  }
  if ("proof" in form.value) decision.skewMs = form.value.proof.skewMs;
  return needs.accepts.includes(form.value.kind) ? form : err(refusal("bearer-not-for-this-route"));
}

function readAgentForm(
  token: string,
  request: ProvenRequest,
  needs: RouteNeeds,
  { tokens, settings, nowMs }: FormDeps,
  decision: Decision,
): Result<AgentForm, Refusal> {
  const remembered = tokens.find(token, nowMs);
  const ait = remembered === null ? readAit(token, { issuer: settings.registryIssuer, nowMs }) : ok(remembered);
  if (!ait.ok) return ait;
  const sender = ait.value.claims.sub;
  decision.agentDid = sender;
  const { skewMaxSeconds, proofV1 } = settings;
  const proof = readProof(request, { nowMs, skewMaxSeconds, proofV1 });
  if (!proof.ok) return proof;
  decision.skewMs = proof.value.skewMs;
  const isShown = needs.access === "if-sent" ? request.headers.has(ACCESS_HEADER) : needs.access;
  const access = isShown ? readAccessToken(request.headers) : ok(null);
  if (!access.ok) return access;
  const addressee = needs.recipient ? readAddressee(request.headers, sender) : ok(null);
  if (!addressee.ok) return addressee;
  if (addressee.value !== null && addressee.value.kind !== "group") {
    decision.recipientDid = addressee.value.recipientDid;
  }
  if (addressee.value !== null && addressee.value.kind !== "pair") decision.groupId = addressee.value.groupId;
  return ok({
    kind: "agent",
    ait: ait.value,
    token,
    proof: proof.value,
    access: access.value,
    addressee: addressee.value,
  });
}

/**
 * The assertion of Cloudflare Access, where one counts and nothing else was shown. A browser sends it by itself, so what changes
 * something has to come from a page of this host.
 *
 * @returns null where there is none to look at
 */
function readAssertion(
  { method, headers, authorities }: ProvenRequest,
  needs: RouteNeeds,
  { settings }: FormDeps,
): Result<CredentialForm, Refusal> | null {
  const assertion = headers.get(ACCESS_ASSERTION_HEADER);
  if (assertion === null || !settings.takesAssertions || !needs.accepts.includes("operator")) return null;
  if (assertion === "" || assertion.length > ASSERTION_MAX_LENGTH) return err(refusal("access-assertion-invalid"));
  if (method !== "GET" && method !== "HEAD" && isCrossSite(headers, authorities))
    return err(refusal("access-cross-site"));
  return ok({ kind: "access", assertion });
}

function isCrossSite(headers: Headers, authorities: readonly string[]): boolean {
  const site = headers.get("Sec-Fetch-Site");
  if (site !== null && site !== "same-origin" && site !== "none") return true;
  const origin = headers.get("Origin");
  return origin !== null && !authorities.includes(URL.parse(origin)?.host ?? "");
}

function takesScheme(accepts: readonly CredentialKind[], scheme: Authorization["scheme"]): boolean {
  switch (scheme) {
    case "claw":
      return accepts.includes("agent");
    case "device":
    case "shared":
      return accepts.includes(scheme);
    case "bearer":
      return accepts.includes("apiKey") || accepts.includes("operator");
  }
}
