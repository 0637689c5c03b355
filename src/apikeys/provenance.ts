/** What an API key was derived from. */
import { subjectOf } from "../audit/entry.ts";
import type { Principal } from "../authority/principal.ts";
import { ProxyError } from "../wire/problem.ts";
import { findApiKeyById } from "./store.ts";

/** Whoever stands behind a credential, and when the credential ends by itself. */
export type Provenance = { originator: string | null; endsAtMs: number | null };

/**
 * @returns for an API key the agent, device or operator at the beginning of its making, null where nobody wrote that down;
 *          for any other credential its holder
 * @throws ProxyError PROXY_AUTH_REVOKED for a key that has gone
 */
export async function provenanceOf(db: D1Database, principal: Principal): Promise<Provenance> {
  if (principal.kind !== "apiKey") {
    return { originator: subjectOf(principal), endsAtMs: principal.kind === "device" ? principal.expMs : null };
  }
  const row = await findApiKeyById(db, principal.apiKeyId);
  if (row === null) throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the key has been deleted" });
  const isOperators = row.creator_user_id === null && row.creator_service_account_id === null;
  return { originator: row.first_maker ?? (isOperators ? "operator" : null), endsAtMs: row.expires_at_ms };
}
