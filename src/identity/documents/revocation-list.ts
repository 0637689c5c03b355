/**
 * The revocation list, contract §1: every revoked and unexpired identity token, signed. Signed anew when something was
 * revoked, when the signing key changed, or when the last signature is a minute old; in between served as it is.
 */
import { CompactSign } from "jose";
import { read } from "../../database/read.ts";
import { ProxyError } from "../../wire/problem.ts";
import { CRL_TYPE } from "../../wire/registry-documents.ts";
import { newUlid } from "../../wire/ulid.ts";
import type { DerivedKey } from "../keys/derivation.ts";
import { currentSigningKey } from "../keys/signing-keys.ts";
import type { Registry } from "../registry.ts";

/** A signed list is served again for so long while nothing changes, so that `iat` keeps notifyStatements that we live. */
const RESIGN_AFTER_MS = 60_000;
/** Life of a list beyond its signing; its readers' own maximum age is far shorter unless they set it otherwise. */
const LIFE_SECONDS = 86_400;
/** An expired token stays listed for so long, because its reader's clock may be behind ours by the skew allowed. */
const LISTED_AFTER_EXPIRY_MS = 300_000;
/** Readers take 24 MiB of base64url: with claims of more bytes than this the list goes without its reasons. */
const REASONS_MAX_BYTES = 17 * 1_048_576;
/** What an entry takes beside its DID and its reason, escapes in the reason aside. */
const ENTRY_BYTES = 100;
/** Entries in one row of the query: the longest DIDs and reasons stay below D1's 2 MB a row. */
const ENTRIES_PER_ROW = 1_500;
const ENTRIES_SQL = `
  WITH listed AS (SELECT * FROM aits WHERE revoked_at_ms IS NOT NULL AND expires_at_ms > ?1),
    size AS (SELECT sum(?4 + length(agent_did) + ifnull(length(CAST(revoked_reason AS BLOB)), 0)) AS bytes FROM listed)
  SELECT group_concat(entry, ',') AS entries FROM (
    SELECT (row_number() OVER () - 1) / ?2 AS part,
      iif(revoked_reason IS NULL OR (SELECT bytes FROM size) > ?3,
        json_object('jti', jti, 'agentDid', agent_did, 'revokedAt', revoked_at_ms),
        json_object('jti', jti, 'agentDid', agent_did, 'reason', revoked_reason, 'revokedAt', revoked_at_ms)) AS entry
    FROM listed)
  GROUP BY part`;
/** How long a request waits for the one that is signing, and how often it looks. */
const WAIT_MS = 4_000;
const LOOK_EVERY_MS = 20;

type SignedList = { readonly revision: string; readonly signedAtMs: number; readonly body: Uint8Array };

// The last list that this isolate signed, by issuer, kid and revision; and until when another request is signing one:
// 100 000 entries are some hundred megabytes of work, too much to do twice at once in one isolate.
let last: SignedList | null = null;
let signingUntilMs = 0;

/** Says that the list has changed; stands in every batch that revokes. */
export function crlChanged(registry: Registry): D1PreparedStatement {
  return registry.db
    .prepare(
      `INSERT INTO crl_state (id, revision, last_iat) VALUES (1, ?1, 0)
       ON CONFLICT (id) DO UPDATE SET revision = excluded.revision`,
    )
    .bind(newUlid(registry.now()));
}

/**
 * @returns the body of `GET /v1/crl`: UTF-8 of `{"crl": "<JWS>"}`
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE when D1 fails, the key cannot be derived, or signing takes too long
 */
export async function signedRevocationList(registry: Registry): Promise<Uint8Array> {
  const startedMs = Date.now();
  for (;;) {
    const key = await currentSigningKey(registry);
    const revision = await currentRevision(registry, key);
    const ageMs = last === null ? Infinity : registry.now() - last.signedAtMs;
    if (last !== null && last.revision === revision && ageMs >= 0 && ageMs < RESIGN_AFTER_MS) return last.body;
    // The lease is real time: a request that is cancelled while it signs never clears it.
    if (Date.now() >= signingUntilMs) return signInTurn(registry, key);
    if (Date.now() - startedMs > WAIT_MS) {
      throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "the revocation list is being signed" });
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

async function signInTurn(registry: Registry, key: DerivedKey): Promise<Uint8Array> {
  signingUntilMs = Date.now() + WAIT_MS;
  try {
    last = await sign(registry, key);
    return last.body;
  } finally {
    signingUntilMs = 0;
  }
}

async function currentRevision(registry: Registry, key: DerivedKey): Promise<string> {
  const select = registry.db.prepare("SELECT revision FROM crl_state WHERE id = 1");
  return cacheRevision(registry, key, (await read(select.first<string>("revision"))) ?? "");
}

function cacheRevision(registry: Registry, key: DerivedKey, revision: string): string {
  return JSON.stringify([registry.issuer, key.kid, revision]);
}

async function sign(registry: Registry, key: DerivedKey): Promise<SignedList> {
  const nowMs = registry.now();
  const { entries, iat, revision } = await readList(registry, nowMs);
  const exp = iat + Math.max(LIFE_SECONDS, Math.ceil((2 * registry.crlMaxAgeMs) / 1_000));
  const head = JSON.stringify({ iss: registry.issuer, jti: newUlid(nowMs), iat, exp });
  const claims = new TextEncoder().encode(`${head.slice(0, -1)},"revocations":[${entries.join(",")}]}`);
  const jws = await new CompactSign(claims)
    .setProtectedHeader({ alg: "EdDSA", typ: CRL_TYPE, kid: key.kid })
    .sign(key.privateKey);
  const body = new TextEncoder().encode(`{"crl":"${jws}"}`);
  return { revision: cacheRevision(registry, key, revision), signedAtMs: nowMs, body };
}

/**
 * The list and its `iat` come from one commit, so that of two lists the one with the later `iat` holds everything that
 * the other holds; and `iat` never falls below what was signed before, whatever this isolate's clock says.
 *
 * @returns the entries as JSON text, some to a piece
 */
async function readList(
  registry: Registry,
  nowMs: number,
): Promise<{ entries: string[]; iat: number; revision: string }> {
  const { db } = registry;
  const [state, rows] = await read(
    db.batch([
      db
        .prepare(
          `INSERT INTO crl_state (id, revision, last_iat) VALUES (1, ?2, ?1)
           ON CONFLICT (id) DO UPDATE SET last_iat = MAX(last_iat, excluded.last_iat)
           RETURNING last_iat AS iat, revision`,
        )
        .bind(Math.floor(nowMs / 1_000), newUlid(nowMs)),
      // Joined by SQLite: as objects, 100 000 entries would take several times the memory.
      db.prepare(ENTRIES_SQL).bind(nowMs - LISTED_AFTER_EXPIRY_MS, ENTRIES_PER_ROW, REASONS_MAX_BYTES, ENTRY_BYTES),
    ]),
  );
  const { iat, revision } = (state?.results[0] ?? { iat: 0, revision: "" }) as { iat: number; revision: string };
  return { entries: ((rows?.results ?? []) as { entries: string }[]).map((row) => row.entries), iat, revision };
}
