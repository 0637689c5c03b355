import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import { runBatch } from "../../src/database/batch.ts";
import type { CallContext } from "../../src/call/context.ts";
import type { Method } from "../../src/rpc/method.ts";
import { pairConfirm, pairPeers, pairStart, pairStatus } from "../../src/rpc/methods/trust.ts";
import { retryPendingNotifications } from "../../src/trust/notifications.ts";
import { lookUpTrust } from "../../src/trust/pairs.ts";
import {
  endTicketsStatement,
  PAST_TICKETS_MAX,
  PENDING_TICKETS_MAX,
  pruneTickets,
} from "../../src/trust/ticket-store.ts";
import { hashPairTicket, newPairTicket, type PairTicket, toClawdentityTicket } from "../../src/trust/ticket.ts";
import { decodeBase64Url } from "../../src/wire/base64url.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { authorityOf, callBy, type CallHarness, newAgentDid, newCallHarness, ROUND } from "./call-context.ts";

const ALICE = { agentName: "alice", humanName: "Alice Doe", proxyOrigin: "https://proxy.example.com" };
const BOB = { agentName: "bob", humanName: "Bob Roe" };

let harness: CallHarness;
let alice: AgentDid;
let bob: AgentDid;

beforeEach(async () => {
  await env.DB.batch([env.DB.prepare("DELETE FROM pair_tickets"), env.DB.prepare("DELETE FROM trust_pairs")]);
  harness = newCallHarness();
  [alice, bob] = [newAgentDid(), newAgentDid()];
});

/** Runs a method as the dispatcher does: parameters parsed, result checked. */
async function call<R>(method: Method, ctx: CallContext, params: unknown): Promise<R> {
  return method.result.parse(await method.handler(ctx, method.params.parse(params))) as R;
}

type Started = { ticket: string; expiresAtMs: number };
type Confirmed = { paired: true; initiatorAgentDid: AgentDid; responderAgentDid: AgentDid; notified: boolean };

const start = (more: Record<string, unknown> = {}): Promise<Started> =>
  call(pairStart, callBy(harness, alice), { initiatorProfile: ALICE, ...more });
const confirm = (ticket: string, as: AgentDid = bob): Promise<Confirmed> =>
  call(pairConfirm, callBy(harness, as), { ticket, responderProfile: BOB });
const status = (ticket: string, as: AgentDid): Promise<{ status: string }> =>
  call(pairStatus, callBy(harness, as), { ticket });

describe("pairing by ticket", () => {
  test("makes trust in both directions and notifies the initiator over its relay", async () => {
    const { ticket, expiresAtMs } = await start();
    expect(expiresAtMs).toBe(harness.nowMs + 300_000);
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: false, epoch: 0 });

    expect(await confirm(ticket)).toEqual({
      paired: true,
      initiatorAgentDid: alice,
      initiatorProfile: ALICE,
      responderAgentDid: bob,
      responderProfile: BOB,
      notified: true,
    });
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: true, epoch: 1 });
    expect(await lookUpTrust(env.DB, bob, alice)).toEqual({ trusted: true, epoch: 1 });
    expect(harness.notified).toHaveLength(1);
    expect(harness.notified[0]?.at).toBe(alice);
    expect(JSON.parse(harness.notified[0]?.message.payload ?? "")).toEqual({
      kind: "pair.confirmed",
      initiatorAgentDid: alice,
      responderAgentDid: bob,
      responderProfile: BOB,
      issuerProxyOrigin: ALICE.proxyOrigin,
      confirmedAtMs: harness.nowMs,
    });
  });

  test("each side sees the other by the name it gave", async () => {
    const { ticket } = await start();
    await confirm(ticket);
    const since = harness.nowMs;
    expect(await call(pairPeers, callBy(harness, alice), {})).toEqual({
      peers: [{ agentDid: bob, agentName: "bob", since }],
    });
    expect(await call(pairPeers, callBy(harness, bob), {})).toEqual({
      peers: [{ agentDid: alice, agentName: "alice", since }],
    });
    expect(await call(pairPeers, callBy(harness, newAgentDid()), {})).toEqual({ peers: [] });
  });

  test("pairing anew raises the epoch and takes the new names", async () => {
    await confirm((await start()).ticket);
    const again = await call<Started>(pairStart, callBy(harness, bob), {
      initiatorProfile: { ...BOB, agentName: "bob2" },
    });
    await call(pairConfirm, callBy(harness, alice), { ticket: again.ticket, responderProfile: ALICE });
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: true, epoch: 2 });
    expect(await call(pairPeers, callBy(harness, alice), {})).toMatchObject({ peers: [{ agentName: "bob2" }] });
  });

  test("only the hash of a ticket is stored", async () => {
    const { ticket } = await start();
    const row = await env.DB.prepare("SELECT * FROM pair_tickets WHERE initiator_did = ?1").bind(alice).first();
    expect(row?.["ticket_hash"]).toBe(await hashPairTicket(ticket as PairTicket));
    expect(JSON.stringify(row)).not.toContain(ticket.slice(4));
  });
});

describe("a ticket works once", () => {
  test("a second use is a conflict, for the same responder too", async () => {
    const { ticket } = await start();
    await confirm(ticket);
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_CONFLICT" });
    await expect(confirm(ticket, newAgentDid())).rejects.toMatchObject({ code: "PROXY_CONFLICT" });
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: true, epoch: 1 });
  });

  test("of twenty responders at the same time one gets trust", async () => {
    const { ticket } = await start();
    const responders = Array.from({ length: 20 }, newAgentDid);
    const answers = await Promise.allSettled(responders.map((did) => confirm(ticket, did)));
    expect(answers.filter((answer) => answer.status === "fulfilled")).toHaveLength(1);
    const trusted = await Promise.all(responders.map((did) => lookUpTrust(env.DB, alice, did)));
    expect(trusted.filter((trust) => trust.trusted)).toHaveLength(1);
    expect(harness.notified).toHaveLength(1);
  });

  test("an expired ticket is gone", async () => {
    const { ticket } = await start({ ttlSeconds: 1 });
    harness.nowMs += 1_000;
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_GONE" });
    await expect(status(ticket, alice)).rejects.toMatchObject({ code: "PROXY_GONE" });
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: false, epoch: 0 });
  });

  test("a ticket works until its last millisecond", async () => {
    const { ticket } = await start({ ttlSeconds: 900 });
    harness.nowMs += 899_999;
    expect((await confirm(ticket)).paired).toBe(true);
  });

  test("a ticket for another responder is refused whatever its state, and stays usable for the right one", async () => {
    const { ticket } = await start({ allowResponderAgentDid: bob });
    const stranger = newAgentDid();
    await expect(confirm(ticket, stranger)).rejects.toMatchObject({ code: "PROXY_AUTH_FORBIDDEN" });
    await confirm(ticket);
    await expect(confirm(ticket, stranger)).rejects.toMatchObject({ code: "PROXY_AUTH_FORBIDDEN" });
  });

  test("nobody pairs with itself", async () => {
    const { ticket } = await start();
    await expect(confirm(ticket, alice)).rejects.toMatchObject({ code: "PROXY_PAIR_TICKET_INVALID" });
    await expect(start({ allowResponderAgentDid: alice })).rejects.toMatchObject({ code: "PROXY_PAIR_INVALID_BODY" });
    expect((await confirm(ticket)).paired).toBe(true);
  });

  test.each([
    ["empty", ""],
    ["without its prefix", "A".repeat(43)],
    ["too short", `spp_${"A".repeat(42)}`],
    ["too long", `spp_${"A".repeat(44)}`],
    ["re-spelled in its last character", `spp_${"A".repeat(42)}B`],
    ["of 10 KiB", `spp_${"A".repeat(10_240)}`],
    ["well-formed but unknown", newPairTicket() as string],
  ])("a ticket that is %s is invalid", async (_what, ticket) => {
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_PAIR_TICKET_INVALID" });
  });

  test("tickets of an agent that was ended cannot be confirmed", async () => {
    const { ticket } = await start();
    await runBatch(env.DB, [endTicketsStatement(alice)]);
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_GONE" });
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: false, epoch: 0 });
  });
});

describe("what pairing tells", () => {
  test("pairing: start and status name both sides and their profiles, times as ISO 8601", async () => {
    const started = await start();
    const expiresAt = new Date(harness.nowMs + 300_000).toISOString();
    expect(started).toMatchObject({ expiresAt, initiatorAgentDid: alice, initiatorProfile: ALICE });
    expect(await status(started.ticket, alice)).toEqual({
      status: "pending",
      expiresAt,
      initiatorAgentDid: alice,
      initiatorProfile: ALICE,
    });
    await confirm(started.ticket);
    expect(await status(started.ticket, bob)).toEqual({
      status: "confirmed",
      expiresAt,
      initiatorAgentDid: alice,
      initiatorProfile: ALICE,
      responderAgentDid: bob,
      responderProfile: BOB,
      confirmedAt: new Date(harness.nowMs).toISOString(),
    });
  });

  test("pairing: a ticket works as it is pasted, with backticks and line breaks, and in either form", async () => {
    const wrap = (ticket: string): string => ` \`\`\`\n${ticket.slice(0, 20)}\n ${ticket.slice(20)}\`\`\` \n`;
    expect(await confirm(wrap((await start()).ticket))).toMatchObject({ paired: true });
    const { ticket, expiresAtMs } = await start();
    const about = { issuer: "https://gate.example.com", expiresAtMs, nowMs: harness.nowMs };
    const other = await toClawdentityTicket(ticket as PairTicket, about);
    expect(await confirm(wrap(other))).toMatchObject({ paired: true });
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_CONFLICT" });
  });

  test("pairing: a ticket in clawdentity's form has that system's members in their order, and a signature over them", async () => {
    const { ticket, expiresAtMs } = await start();
    const about = { issuer: "https://gate.example.com", expiresAtMs, nowMs: harness.nowMs };
    const text = await toClawdentityTicket(ticket as PairTicket, about);
    const value = JSON.parse(new TextDecoder().decode(decodeBase64Url(text.slice("clwpair1_".length))!)) as object;
    expect(Object.keys(value)).toEqual(["v", "iss", "kid", "nonce", "exp", "pkid", "sig"]);
    expect(value).toMatchObject({ v: 2, iss: "https://gate.example.com", exp: Math.floor(expiresAtMs / 1_000) });
  });

  test.each([
    ["nothing", ""],
    ["clawdentity's prefix alone", "clwpair1_"],
    ["no JSON in clawdentity's form", "clwpair1_AAAA"],
    ["a nonce that is no secret", `clwpair1_${btoa(JSON.stringify({ nonce: "short" })).replaceAll("=", "")}`],
    ["null in clawdentity's form", `clwpair1_${btoa("null").replaceAll("=", "")}`],
    ["more text than any ticket has", "x".repeat(5_000)],
  ])("pairing: %s is no ticket", async (_what, ticket) => {
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_PAIR_TICKET_INVALID" });
  });
});

describe("the state of a ticket", () => {
  test("is notified to the initiator, to the responder it is meant for, and to the one who confirmed it", async () => {
    const open = await start();
    const meant = await start({ allowResponderAgentDid: bob });
    expect(await status(open.ticket, alice)).toMatchObject({ status: "pending" });
    expect(await status(meant.ticket, bob)).toMatchObject({ status: "pending" });
    await confirm(open.ticket);
    expect(await status(open.ticket, alice)).toMatchObject({ status: "confirmed" });
    expect(await status(open.ticket, bob)).toMatchObject({ status: "confirmed" });
  });

  test("looks to anybody else like a ticket that does not exist", async () => {
    const { ticket } = await start();
    const refusals = await Promise.all(
      [status(ticket, newAgentDid()), status(newPairTicket(), bob)].map((asked) =>
        asked.catch((error: { code: string; message: string }) => [error.code, error.message]),
      ),
    );
    expect(refusals[0]).toEqual(["PROXY_NOT_FOUND", expect.any(String)]);
    expect(refusals[1]).toEqual(refusals[0]);
  });

  test("is still notified for a day after a confirmation, then forgotten", async () => {
    const { ticket } = await start();
    await confirm(ticket);
    harness.nowMs += 86_000_000;
    await pruneTickets(env.DB, harness.nowMs, 1_000);
    expect(await status(ticket, alice)).toMatchObject({ status: "confirmed" });
    harness.nowMs += 1_000_000;
    await pruneTickets(env.DB, harness.nowMs, 1_000);
    await expect(status(ticket, alice)).rejects.toMatchObject({ code: "PROXY_NOT_FOUND" });
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(true);
  });
});

describe("the tickets of one agent", () => {
  /** So many tickets of alice's as they lie in the database, each expiring a millisecond after the one before. */
  const seed = (count: number, firstExpiresAtMs: number): Promise<unknown> =>
    env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?3)
       INSERT INTO pair_tickets (ticket_hash, initiator_did, initiator_profile, created_at_ms, expires_at_ms)
       SELECT 'hash-' || ?2 || '-' || i, ?1, '{}', ?2, ?2 + i FROM n`,
    )
      .bind(alice, firstExpiresAtMs, count)
      .run();
  const count = (where: string): Promise<number | null> =>
    env.DB.prepare(`SELECT COUNT(*) AS n FROM pair_tickets WHERE ${where}`).first<number>("n");

  test("may be pending by the hundred and no more, until one expires or is confirmed", async () => {
    await seed(PENDING_TICKETS_MAX - 1, harness.nowMs + 60_000);
    const { ticket } = await start({ ttlSeconds: 900 });
    await expect(start()).rejects.toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED", retryAfterMs: 60_000 });
    expect((await call<Started>(pairStart, callBy(harness, bob), { initiatorProfile: BOB })).ticket).toBeTruthy();

    await confirm(ticket);
    await start({ ttlSeconds: 900 });
    await expect(start()).rejects.toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED" });
    harness.nowMs += 60_000;
    await start();
    await expect(start()).rejects.toMatchObject({ code: "PROXY_RATE_LIMIT_EXCEEDED", retryAfterMs: 1 });
  });

  test("are counted where they are made: of twenty at the same time only those pass for which there is room", async () => {
    await seed(PENDING_TICKETS_MAX - 5, harness.nowMs + 60_000);
    const answers = await Promise.allSettled(Array.from({ length: 20 }, () => start()));
    expect(answers.filter((answer) => answer.status === "fulfilled")).toHaveLength(5);
    expect(await count("status = 'pending'")).toBe(PENDING_TICKETS_MAX);
  });

  test("that are over are remembered by the thousand, the newest of them, and those with a pending notification", async () => {
    const firstMs = harness.nowMs - 10_000;
    await seed(PAST_TICKETS_MAX + 3, firstMs);
    await env.DB.prepare("UPDATE pair_tickets SET notify_at_ms = 1 WHERE expires_at_ms = ?1").bind(firstMs).run();
    await start();
    expect(await count("status = 'pending'")).toBe(PAST_TICKETS_MAX + 2);
    expect(await count(`expires_at_ms IN (${firstMs + 1}, ${firstMs + 2})`)).toBe(0);
    expect(await count(`expires_at_ms IN (${firstMs}, ${firstMs + 3})`)).toBe(2);
  });
});

describe("notifying the initiator", () => {
  test("when it fails the trust stands, the answer says so, and the log is loud", async () => {
    const { ticket } = await start();
    harness.broken.add(alice);
    expect(await confirm(ticket)).toMatchObject({ paired: true, notified: false });
    expect((await lookUpTrust(env.DB, alice, bob)).trusted).toBe(true);
    expect(harness.log.lines.filter((line) => line.level === "error").map((line) => line.event)).toEqual([
      "trust.notification_failed",
    ]);
  });

  test("a failed notification is retried until the gate has it, under one delivery id, and then no more", async () => {
    const { ticket } = await start();
    harness.broken.add(alice);
    await confirm(ticket);
    const deps = { db: env.DB, gates: harness.gates, now: () => harness.nowMs, log: harness.log };

    harness.nowMs += 20_000;
    expect(await retryPendingNotifications(deps, ROUND)).toEqual({ done: 0, failed: 1, left: 0 });
    expect(await retryPendingNotifications(deps, ROUND), "backs off").toEqual({ done: 0, failed: 0, left: 0 });
    harness.broken.clear();
    harness.nowMs += 20_000;
    expect(await retryPendingNotifications(deps, ROUND)).toEqual({ done: 1, failed: 0, left: 0 });
    harness.nowMs += 7_200_000;
    expect(await retryPendingNotifications(deps, ROUND)).toEqual({ done: 0, failed: 0, left: 0 });

    expect(harness.notified.map(({ at }) => at)).toEqual([alice]);
    const row = await env.DB.prepare("SELECT confirm_id FROM pair_tickets WHERE initiator_did = ?1")
      .bind(alice)
      .first();
    expect(harness.notified[0]?.message.deliveryId).toBe(String(row?.["confirm_id"]));
  });

  test("a process that dies between the commit and the notification leaves it pending", async () => {
    const { ticket } = await start();
    const ctx = callBy(harness, bob);
    const dies = {
      ...ctx,
      gates: { of: () => ({ notify: () => new Promise(() => {}) }) } as unknown as CallContext["gates"],
    };
    void call(pairConfirm, dies, { ticket, responderProfile: BOB }).catch(() => undefined);
    await expect.poll(async () => (await lookUpTrust(env.DB, alice, bob)).trusted).toBe(true);

    harness.nowMs += 20_000;
    const deps = { db: env.DB, gates: harness.gates, now: () => harness.nowMs, log: harness.log };
    await retryPendingNotifications(deps, ROUND);
    expect(harness.notified.map(({ at }) => at)).toEqual([alice]);
  });
});

describe("authority", () => {
  test("a caller whose authority ended before the call makes nothing", async () => {
    const { ticket } = await start();
    const ended = authorityOf(bob);
    ended.ended = true;
    await expect(
      call(pairConfirm, callBy(harness, bob, ended), { ticket, responderProfile: BOB }),
    ).rejects.toMatchObject({
      code: "PROXY_AUTH_REVOKED",
    });
    expect((await confirm(ticket)).paired).toBe(true);
  });

  test("a batch under an epoch that was raised meanwhile is undone whole", async () => {
    const { ticket } = await start();
    await env.DB.prepare("INSERT INTO authority_epochs (authority, epoch) VALUES (?1, 1)").bind(`agent:${bob}`).run();
    await expect(confirm(ticket)).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
    expect(await lookUpTrust(env.DB, alice, bob)).toEqual({ trusted: false, epoch: 0 });
    expect(await status(ticket, alice)).toMatchObject({ status: "pending" });
    expect(harness.notified).toEqual([]);
  });
});

describe("the body of a pairing request", () => {
  test.each<[string, Record<string, unknown>]>([
    ["no profile", {}],
    ["a blank name", { initiatorProfile: { ...ALICE, agentName: " " } }],
    ["a control character in a name", { initiatorProfile: { ...ALICE, humanName: "a\u0007b" } }],
    ["a mark that re-orders text", { initiatorProfile: { ...ALICE, humanName: "a\u202eb" } }],
    ["a lone surrogate", { initiatorProfile: { ...ALICE, humanName: "a\ud800b" } }],
    ["a zero-width space", { initiatorProfile: { ...ALICE, humanName: "a\u200bb" } }],
    ["a soft hyphen", { initiatorProfile: { ...ALICE, agentName: "a\u00adb" } }],
    ["a name of 129 characters", { initiatorProfile: { ...ALICE, agentName: "a".repeat(129) } }],
    ["an origin with a path", { initiatorProfile: { ...ALICE, proxyOrigin: "https://proxy.example.com/x" } }],
    ["an origin of another scheme", { initiatorProfile: { ...ALICE, proxyOrigin: "javascript:alert(1)" } }],
    ["0 seconds", { initiatorProfile: ALICE, ttlSeconds: 0 }],
    ["901 seconds", { initiatorProfile: ALICE, ttlSeconds: 901 }],
    ["half a second", { initiatorProfile: ALICE, ttlSeconds: 1.5 }],
    ["seconds as text", { initiatorProfile: ALICE, ttlSeconds: "300" }],
    ["a responder that is no DID", { initiatorProfile: ALICE, allowResponderAgentDid: "bob" }],
  ])("with %s is refused", (_what, params) => {
    expect(pairStart.params.safeParse(params).success).toBe(false);
  });

  test("keeps of a profile what it knows and ignores the rest", async () => {
    const { ticket } = await start({ initiatorProfile: { ...ALICE, secret: "s" }, extra: 1 });
    expect((await confirm(ticket)).paired).toBe(true);
    const row = await env.DB.prepare("SELECT initiator_profile FROM pair_tickets WHERE initiator_did = ?1")
      .bind(alice)
      .first();
    expect(JSON.parse(String(row?.["initiator_profile"]))).toEqual(ALICE);
  });
});
