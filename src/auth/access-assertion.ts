/**
 * Cloudflare Access in front of the console: the assertion by which it vouches for a person. Its keys are the team's own,
 * `https://<team>/cdn-cgi/access/certs`; the role is looked up here by the address in it.
 */
import { createRemoteJWKSet, customFetch, errors, type JWTPayload, jwtVerify } from "jose";
import type { OperatorPrincipal } from "../authority/operator.ts";
import type { AccessSettings } from "../config.ts";
import { readBody } from "../resilience/bounded-body.ts";
import type { OperatorRole } from "../wire/operator-role.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { plainTextProblem } from "../wire/text.ts";
import { type Refusal, refusal } from "./reasons.ts";

export const ACCESS_ASSERTION_HEADER = "Cf-Access-Jwt-Assertion";

/** An assertion has some 1,000 characters. */
export const ASSERTION_MAX_LENGTH = 8_192;
const KEYS_MAX_BYTES = 65_536;
const KEYS_TIMEOUT_MS = 3_000;
/** A key that the team no longer publishes verifies nothing after this. */
const KEYS_MAX_AGE_MS = 3_600_000;
/** An unknown key, or a failure, causes one look at the team's keys in so long. */
const KEYS_COOLDOWN_MS = 30_000;
const EMAIL_MAX_LENGTH = 254;

export type AssertionVerifier = {
  /** @returns the person whom Access vouches for, with the role that `ACCESS_ROLES` gives */
  verify(assertion: string, nowMs: number): Promise<Result<OperatorPrincipal, Refusal>>;
};

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/**
 * @param ask how the team's keys are fetched
 * @returns the verifier of one isolate; it remembers the team's keys, and no request's promise
 */
export function createAssertionVerifier(
  { teamDomain, audience, roles }: AccessSettings,
  ask: Fetch = (url, init) => fetch(url, init),
): AssertionVerifier {
  const issuer = `https://${teamDomain}`;
  const keys = createRemoteJWKSet(new URL("/cdn-cgi/access/certs", issuer), {
    cacheMaxAge: KEYS_MAX_AGE_MS,
    cooldownDuration: KEYS_COOLDOWN_MS,
    timeoutDuration: KEYS_TIMEOUT_MS,
    [customFetch]: fetchKeys(ask),
  });

  return {
    async verify(assertion, nowMs) {
      let claims: JWTPayload;
      try {
        const options = {
          issuer,
          audience,
          algorithms: ["RS256"],
          requiredClaims: ["exp"],
          currentDate: new Date(nowMs),
        };
        claims = (await jwtVerify(assertion, keys, options)).payload;
      } catch (error) {
        return err(refusalOf(error));
      }
      const email = emailOf(claims);
      if (email === null) return err(refusal("access-role-none"));
      const role = roleOf(roles, email);
      if (role === null) return err(refusal("access-role-none"));
      return ok({ kind: "operator", name: email, role, id: email, isRevocable: false });
    },
  };
}

/** The role of an address, or of its domain. */
function roleOf(roles: AccessSettings["roles"], email: string): OperatorRole | null {
  return roles.get(email) ?? roles.get(email.slice(email.lastIndexOf("@") + 1)) ?? null;
}

/** In lower case, as it is compared and recorded; of a service token there is none. */
function emailOf({ email }: JWTPayload): string | null {
  if (typeof email !== "string" || !/^[^\s@]+@[^\s@]+$/.test(email)) return null;
  return plainTextProblem(email, 3, EMAIL_MAX_LENGTH) === null ? email.toLowerCase() : null;
}

function refusalOf(error: unknown): Refusal {
  // What jose says of a token or of its key is the caller's doing; anything else is the team's keys out of reach.
  const isCallers =
    error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout) && error.code !== "ERR_JOSE_GENERIC";
  return isCallers
    ? refusal("access-assertion-invalid", { joseCode: error.code })
    : { ...refusal("access-keys-unavailable"), retryAfterMs: 5_000 };
}

/** Bounded in bytes, and not asked again for a while after a failure: a stranger cannot make this Worker ask and ask. */
function fetchKeys(ask: Fetch): Fetch {
  let failedAtMs = -Infinity;
  return async (url, init) => {
    if (Math.abs(Date.now() - failedAtMs) < KEYS_COOLDOWN_MS / 6) throw new Error("the team's keys are out of reach");
    try {
      const response = await ask(url, init);
      const { status, body } = response;
      if (status !== 200) {
        await body?.cancel();
        throw new Error(`status ${status}`);
      }
      const bytes = await readBody(body, KEYS_MAX_BYTES, init.signal ?? AbortSignal.timeout(KEYS_TIMEOUT_MS));
      return new Response(bytes, { status });
    } catch (error) {
      failedAtMs = Date.now();
      throw error;
    }
  };
}
