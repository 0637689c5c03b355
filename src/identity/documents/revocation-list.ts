/**
 * The revocation list, contract §1: every revoked and unexpired identity token, signed. Signed anew when something was
 * revoked, when the signing key changed, or when the last signature is a minute old; in between served as it is.
 */
import { CompactSign } from "jose";
import { and, gt, isNotNull, sql } from "drizzle-orm";
import { runBatch } from "../../database/batch.ts";
import { excluded, names } from "../../database/columns.ts";
import { readFirst } from "../../database/read.ts";
import { aits, crlState } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { ProxyError } from "../../wire/problem.ts";
import { CRL_TYPE } from "../../wire/registry-documents.ts";
import { newUlid } from "../../wire/ulid.ts";
import type { DerivedKey } from "../keys/derivation.ts";
import { currentSigningKey } from "../keys/signing-keys.ts";
import type { Registry } from "../registry.ts";

/** A signed list is served again for so long while nothing changes, so that `iat` shows that the registry lives. */
const RESIGN_AFTER_MS = 60_000;
/** Life of a list beyond its signing; its readers' own maximum age is far shorter unless they set it otherwise. */
const LIFE_SECONDS = 86_400;
/** An expired token stays listed for so long, because its reader's clock may be behind ours by the skew allowed. */
const LISTED_AFTER_EXPIRY_MS = 300_000;
/** How far behind the clock a list is dated that nothing else dates: far more than clocks of isolates differ. */
const UNDATED_SECONDS = 300;
/** How far ahead of the clock many revocations in one second may date a list: half of what its readers allow. */
const AHEAD_MAX_SECONDS = 30;
/** Readers take 24 MiB of base64url: with claims of more bytes than this the list goes without its reasons. */
const REASONS_MAX_BYTES = 17 * 1_048_576;
/** What an entry takes beside its DID and its reason, escapes in the reason aside. */
const ENTRY_BYTES = 100;
/** Entries in one row of the query: the longest DIDs and reasons stay below D1's 2 MB a row. */
const ENTRIES_PER_ROW = 1_500;
/** How long a request waits for the one that is signing, and how often it looks. */
const WAIT_MS = 4_000;
const LOOK_EVERY_MS = 20;

type SignedList = { readonly revision: string; readonly signedAtMs: number; readonly body: Uint8Array };

// The last list that this isolate signed, by issuer, kid and revision; and until when another request is signing one:
// 100 000 entries are some hundred megabytes of work, too much to do twice at once in one isolate.
let last: SignedList | null = null;
let signingUntilMs = 0;

/**
 * Says that the list has changed; stands in every batch that revokes. From then on a list is dated later than any that was signed
 * before, within the same second too unless 30 revocations were.
 */
export function crlChanged(nowMs: number): Statement<D1Result> {
  const { id, revision, lastIat } = crlState;
  const nowSeconds = Math.floor(nowMs / 1_000);
  return query
    .insert(crlState)
    .values({ id: 1, revision: newUlid(nowMs), lastIat: nowSeconds })
    .onConflictDoUpdate({
      target: id,
      set: {
        revision: sql`${excluded(revision)}`,
        lastIat: sql`MAX(${lastIat}, ${nowSeconds}, MIN(${lastIat} + 1, ${nowSeconds + AHEAD_MAX_SECONDS}))`,
      },
    });
}

/**
 * Dates the lists to come, for housekeeping to run each minute: what a list is dated by is written on time rather than by whoever
 * asks for one, so that a reader writes nothing and `iat` never falls whichever isolate signs.
 */
export function dateListStatement(nowMs: number): Statement<D1Result> {
  const { id, lastIat } = crlState;
  return query
    .insert(crlState)
    .values({ id: 1, revision: "", lastIat: Math.floor(nowMs / 1_000) })
    .onConflictDoUpdate({ target: id, set: { lastIat: sql`MAX(${lastIat}, ${excluded(lastIat)})` } });
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
  const state = await readFirst(registry.db, query.select({ revision: crlState.revision }).from(crlState));
  return cacheRevision(registry, key, state?.revision ?? "");
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
 * The list and its `iat` are read at one moment and at the primary, so that of two lists the one with the later `iat` holds everything
 * that the other holds. Where housekeeping has not dated it for long, the clock of this isolate does, well behind the present.
 *
 * @returns the entries as JSON text, some to a piece
 */
async function readList(
  registry: Registry,
  nowMs: number,
): Promise<{ entries: string[]; iat: number; revision: string }> {
  const [[state], rows] = await runBatch(registry.db, [
    query.select().from(crlState),
    listedEntries(nowMs - LISTED_AFTER_EXPIRY_MS),
  ]);
  const iat = Math.max(state?.lastIat ?? 0, Math.floor(nowMs / 1_000) - UNDATED_SECONDS);
  return { entries: rows.map(({ entries }) => entries), iat, revision: state?.revision ?? "" };
}

/** Entries as JSON text, joined by SQLite: as objects, 100 000 of them would take several times the memory. */
const listedEntries = (afterMs: number): Statement<{ entries: string }[]> => {
  const { jti, agentDid, revokedAtMs, revokedReason } = aits;
  const isListed = and(isNotNull(revokedAtMs), gt(aits.expiresAtMs, afterMs));
  return query.all(sql`
    WITH listed AS (SELECT ${names(jti, agentDid, revokedAtMs, revokedReason)} FROM ${aits} WHERE ${isListed}),
      size AS (SELECT SUM(${ENTRY_BYTES} + LENGTH(${names(agentDid)}) + IFNULL(LENGTH(CAST(${names(revokedReason)} AS BLOB)), 0)) AS bytes FROM listed)
    SELECT GROUP_CONCAT(entry, ',') AS entries FROM (
      SELECT (ROW_NUMBER() OVER () - 1) / ${ENTRIES_PER_ROW} AS part,
        IIF(${names(revokedReason)} IS NULL OR (SELECT bytes FROM size) > ${REASONS_MAX_BYTES},
          JSON_OBJECT('jti', ${names(jti)}, 'agentDid', ${names(agentDid)}, 'revokedAt', ${names(revokedAtMs)}),
          JSON_OBJECT('jti', ${names(jti)}, 'agentDid', ${names(agentDid)}, 'reason', ${names(revokedReason)}, 'revokedAt', ${names(revokedAtMs)})) AS entry
      FROM listed)
    GROUP BY part`);
};
