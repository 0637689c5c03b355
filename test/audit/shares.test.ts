/** Nobody floods the audit: each actor has a share of it, what is rare is kept beyond, and what is missing is said. */
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { auditStatement } from "../../src/audit/entry.ts";
import { settleAuditShares } from "../../src/audit/shares.ts";
import { ROOT } from "../../src/authority/operator.ts";
import type { Principal } from "../../src/authority/principal.ts";
import { runBatch } from "../../src/database/batch.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { NOW_MS, operatorCall, rows } from "../identity/fixture.ts";

const HOUR_MS = 3_600_000;
const device = (name: string): Principal => ({
  kind: "device",
  agentDid: "did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A" as AgentDid,
  ownerDid: null,
  deviceId: name,
  scopes: ["relay"],
  epoch: 1,
  expMs: NOW_MS,
});
const actorOf = (name: string) => `device:did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A/${name}`;

async function append(principal: Principal, action: string, times: number, atMs = NOW_MS): Promise<void> {
  for (let done = 0; done < times; done += 100) {
    const some = Array.from({ length: Math.min(100, times - done) }, () =>
      auditStatement(
        { ...operatorCall(), principal, now: () => atMs },
        { action, subject: "agent:x", agentDid: null, result: "ok" },
      ),
    );
    // oxlint-disable-next-line no-await-in-loop -- a batch at a time
    await runBatch(env.DB, some);
  }
}
const counted = async (actor: string): Promise<Record<string, number>> =>
  Object.fromEntries(
    (
      await rows<{ action: string; n: number }>(
        "SELECT action, COUNT(*) AS n FROM audit WHERE actor = ? GROUP BY action",
        actor,
      )
    ).map(({ action, n }) => [action, n]),
  );

describe("the audit", () => {
  test("takes a thousand entries of an actor in an hour, and twenty of each other action beyond", async () => {
    await append(device("flood"), "device.pair.rename", 1_200);
    await append(device("flood"), "device.token.rotate", 1);
    await append(device("flood"), "shared.auth.rotate", 30);
    await append(device("neighbour"), "device.pair.rename", 3);
    expect(await counted(actorOf("flood"))).toEqual({
      "device.pair.rename": 1_000,
      "device.token.rotate": 1,
      "shared.auth.rotate": 20,
    });
    expect(await counted(actorOf("neighbour"))).toEqual({ "device.pair.rename": 3 });
    await append(device("flood"), "device.pair.rename", 2, NOW_MS + HOUR_MS);
    expect((await counted(actorOf("flood")))["device.pair.rename"]).toBe(1_002);
  });

  test("says by one entry, once the hour is over, what was left out", async () => {
    expect(await settleAuditShares(env.DB, NOW_MS, 1_000)).toBe(0);
    while ((await settleAuditShares(env.DB, NOW_MS + 3 * HOUR_MS, 1_000)) > 0);
    const said = await rows<{ actor: string; subject: string; details: string }>(
      "SELECT actor, subject, details FROM audit WHERE action = 'audit.left_out'",
    );
    expect(said.map(({ details, ...entry }) => ({ ...entry, details: JSON.parse(details) as unknown }))).toEqual([
      {
        actor: "sallyport",
        subject: actorOf("flood"),
        details: { sinceMs: NOW_MS, entries: 210, byAction: "device.pair.rename 200, shared.auth.rotate 10" },
      },
    ]);
    expect(await rows("SELECT * FROM audit_usage")).toEqual([]);
  });

  test("leaves nothing out that an operator did", async () => {
    await append({ ...ROOT, name: "alice", id: "01K00000000000000000000000", role: "admin" }, "task.get", 1_100);
    await append(ROOT, "task.get", 1_100);
    expect(await counted("operator:01K00000000000000000000000")).toEqual({ "task.get": 1_100 });
    expect(await counted("operator")).toEqual({ "task.get": 1_100 });
  });
});
