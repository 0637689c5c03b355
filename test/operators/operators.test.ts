/** Operators (contract §2, §5) over the whole Worker, with real gates and D1. */
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import type { CallContext } from "../../src/call/context.ts";
import { ROOT } from "../../src/authority/operator.ts";
import { underOperator } from "../../src/operators/lease.ts";
import { createInvite } from "../../src/identity/invites.ts";
import {
  apiKeyOf,
  codeOf,
  fetchWorker,
  type Operator,
  operator,
  operatorWith,
  register,
  result,
  rows,
  rpcResponse,
} from "../support/world.ts";
import { runtimeOf } from "../../src/runtime.ts";
import { silentLog } from "../support/silent-log.ts";

const ask = (
  who: Operator,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Response> =>
  fetchWorker(
    new Request(`https://proxy.example${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${who.key ?? env.OPERATOR_TOKEN}`,
        "Content-Type": "application/json",
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    }),
  );
const withKey = (key: string): Operator => ({ kind: "operator", key });
/** What a refusal says, without what is each request's own. */
const told = async (answer: Response): Promise<string> => {
  const { requestId: _, ...body } = await answer.json<Record<string, unknown>>();
  return `${answer.status} ${JSON.stringify(body)}`;
};

describe("an operator's key", () => {
  test("is shown once, stored as its hash alone, and acts by its name", async () => {
    const alice = await operatorWith("admin", "alice");
    expect(alice.key).toMatch(/^spo_[\w-]{43}$/);
    const [row] = await rows("SELECT * FROM operators WHERE operator_id = ?", alice.operatorId);
    expect(JSON.stringify(row)).not.toContain(alice.key.slice(4));
    const { operators } = await result(alice, "operator/list", {});
    expect(operators).toContainEqual(expect.objectContaining({ name: "alice", role: "admin", createdBy: "operator" }));
    expect(JSON.stringify(operators)).not.toContain("spo_");

    const agent = await register();
    await result(alice, "authz/write", {
      writes: [{ object: `tenant:${agent.tenantId}`, relation: "member", subject: "user:bob" }],
    });
    const invite = await (await ask(alice, "POST", "/v1/invites", {})).json<{ inviteId: string }>();
    await result(alice, "shared.auth.rotate", { agentDid: agent.did });
    const { entries } = (await result(operator, "audit/list", {})) as {
      entries: { action: string; actor: string; operator?: string; subject: string }[];
    };
    const by = (action: string, subject?: string) =>
      entries.find((entry) => entry.action === action && (subject === undefined || entry.subject === subject));
    expect(by("operator.create")).toMatchObject({
      actor: "operator",
      operator: "root",
      subject: `operator:${alice.operatorId}`,
    });
    expect(by("authz.write")).toMatchObject({ actor: `operator:${alice.operatorId}`, operator: "alice" });
    expect(by("invite.create", `invite:${invite.inviteId}`)).toMatchObject({ operator: "alice" });
    // What a gate records comes a moment later.
    await expect
      .poll(() => rows("SELECT operator FROM audit WHERE action = 'shared.auth.rotate' AND agent_did = ?", agent.did))
      .toEqual([{ operator: "alice" }]);
  });

  test("has a name of its own, and nobody is called root", async () => {
    await operatorWith("viewer", "carol");
    expect(await codeOf(operator, "operator/create", { name: "carol", role: "admin" })).toBe("PROXY_CONFLICT");
    expect(await codeOf(operator, "operator/create", { name: "Root", role: "admin" })).toBe("PROXY_CONFLICT");
    for (const params of [
      { name: "x", role: "king" },
      { name: "", role: "admin" },
      { name: "x", role: "admin", expiresAtMs: 1 },
      { role: "admin" },
    ])
      expect(await codeOf(operator, "operator/create", params)).toMatch(/^(PROXY_BAD_REQUEST|undefined)$/);
  });

  test("may do over every route what its role may, and nothing else", async () => {
    const [registrar, viewer, metrics, admin] = await Promise.all([
      operatorWith("registrar", "r1"),
      operatorWith("viewer", "v1"),
      operatorWith("metrics", "m1"),
      operatorWith("admin", "a1"),
    ]);
    const agent = await register();
    const routes: [method: string, path: string, body: unknown][] = [
      ["GET", "/v1/agents", undefined],
      ["GET", "/v1/invites", undefined],
      ["POST", "/v1/invites", {}],
      ["POST", "/v1/agents/revoke", { agentDid: agent.did }],
      ["GET", `/v1/dead-letters?agentDid=${agent.did}`, undefined],
      ["GET", "/metrics", undefined],
    ];
    const statuses = async (who: Operator): Promise<number[]> => {
      const seen: number[] = [];
      for (const [method, path, body] of routes) {
        const answer = await ask(who, method, path, body);
        await answer.arrayBuffer();
        seen.push(answer.status);
      }
      return seen;
    };
    expect(await statuses(metrics)).toEqual([403, 403, 403, 403, 403, 200]);
    expect(await statuses(viewer)).toEqual([200, 200, 403, 403, 200, 200]);
    expect(await statuses(registrar)).toEqual([200, 200, 201, 403, 403, 403]);
    expect(await statuses(admin)).toEqual([200, 200, 201, 200, 200, 200]);
    expect(await codeOf(admin, "operator/create", { name: "x", role: "viewer" })).toBe("PROXY_AUTH_FORBIDDEN");
    expect(await codeOf(viewer, "device.token.revoke", { agentDid: agent.did, deviceId: "x" })).toBe(
      "PROXY_AUTH_FORBIDDEN",
    );
    expect((await fetchWorker(new Request("https://proxy.example/ready"))).status).toBe(200);
  });

  test("that is unknown, revoked or expired gets one and the same answer, and ten of them lock an address", async () => {
    const dave = await operatorWith("owner", "dave");
    const soon = (await result(operator, "operator/create", {
      name: "soon",
      role: "admin",
      expiresAtMs: Date.now() + 60_000,
    })) as { operatorId: string; key: string };
    await env.DB.prepare("UPDATE operators SET expires_at_ms = 1 WHERE operator_id = ?").bind(soon.operatorId).run();
    await result(operator, "operator/revoke", { operatorId: dave.operatorId });
    const keys = [`spo_${"A".repeat(43)}`, dave.key, soon.key, "no-key-of-any-form-0123456789abcdef0123"];
    const answers = await Promise.all(keys.map(async (key) => told(await ask(withKey(key), "GET", "/v1/agents"))));
    expect(new Set(answers).size).toBe(1);
    expect(answers[0]).toContain("401");

    const from = { "CF-Connecting-IP": "192.0.2.91" };
    const erin = await operatorWith("viewer", "erin");
    expect((await ask(erin, "GET", "/v1/agents", undefined, from)).status).toBe(200);
    const statuses: number[] = [];
    for (let guess = 0; guess < 12; guess++) {
      const key = `spo_${String(guess).padStart(42, "B")}A`;
      statuses.push((await ask(withKey(key), "GET", "/v1/agents", undefined, from)).status);
    }
    expect(statuses).toEqual([...Array.from({ length: 10 }, () => 401), 429, 429]);
    expect((await ask(erin, "GET", "/v1/agents", undefined, from)).status).toBe(200);
  });
});

describe("operator/revoke", () => {
  test("ends the key, the operators, invites and API keys that were made with it, and theirs, by the same answer", async () => {
    const frank = await operatorWith("owner", "frank");
    const grace = await operatorWith("admin", "grace", frank);
    const agent = await register();
    const invite = await (
      await ask(grace, "POST", "/v1/invites", { uses: 5 })
    ).json<{ inviteId: string; invite: string }>();
    const key = await apiKeyOf(agent, ["tasks:read", "admin"], grace);
    const child = await apiKeyOf(agent, ["tasks:read"], key);
    const other = await apiKeyOf(agent, ["tasks:read"]);
    await result(child, "task/list", {});

    const { ended, revokedAtMs } = (await result(operator, "operator/revoke", { operatorId: frank.operatorId })) as {
      ended: unknown;
      revokedAtMs: number;
    };
    expect(ended).toEqual({ operators: 1, invites: 1, apiKeys: 1 });
    for (const who of [frank, grace, key, child]) {
      const answer = await rpcResponse(who, "task/list", {});
      expect(answer.status).toBe(401);
      await answer.arrayBuffer();
    }
    await result(other, "task/list", {});
    const [row] = await rows("SELECT revoked_at_ms FROM invites WHERE invite_id = ?", invite.inviteId);
    expect(row?.["revoked_at_ms"]).not.toBeNull();
    const audited = await rows<{ action: string; subject: string }>(
      "SELECT action, subject FROM audit WHERE operator = 'root' AND action LIKE '%revoke' AND at_ms >= ?",
      revokedAtMs,
    );
    expect(audited.map(({ action, subject }) => `${action} ${subject}`).toSorted()).toEqual(
      [
        `operator.revoke operator:${frank.operatorId}`,
        `operator.revoke operator:${grace.operatorId}`,
        `invite.revoke invite:${invite.inviteId}`,
      ].toSorted(),
    );
    // Repeated, it says the same; the name is free again.
    expect(await result(operator, "operator/revoke", { operatorId: frank.operatorId })).toMatchObject({
      revokedAtMs,
      ended: { operators: 0, invites: 0, apiKeys: 0 },
    });
    await operatorWith("viewer", "frank");
  });

  test("answers one that ends itself, and refuses what follows in its batch", async () => {
    const heidi = await operatorWith("owner", "heidi");
    const body = JSON.stringify([
      { jsonrpc: "2.0", id: 1, method: "operator/list", params: {} },
      { jsonrpc: "2.0", id: 2, method: "operator/revoke", params: { operatorId: heidi.operatorId } },
      { jsonrpc: "2.0", id: 3, method: "operator/list", params: {} },
    ]);
    const answer = await ask(heidi, "POST", "/rpc", JSON.parse(body));
    const replies = await answer.json<{ result?: unknown; error?: { data: { code: string } } }[]>();
    expect(replies.map(({ error }) => error?.data.code ?? "ok")).toEqual(["ok", "ok", "PROXY_AUTH_REVOKED"]);
  });

  test("undoes what a call that is under way still commits", async () => {
    const ivan = await operatorWith("registrar", "ivan");
    const principal = { ...ROOT, name: "ivan", role: "registrar" as const, id: ivan.operatorId, isRevocable: true };
    const before = (await rows("SELECT invite_id FROM invites")).length;
    await underOperator(principal, { db: env.DB, now: Date.now }, async (authority) => {
      await result(operator, "operator/revoke", { operatorId: ivan.operatorId });
      // As an isolate does whose clock has stood still: the fence in D1 alone is left.
      const ctx: CallContext = {
        env,
        config: runtimeOf(env).config,
        db: env.DB,
        principal,
        authority: { ...authority, assertCurrent() {} },
        requestId: "r",
        origin: null,
        now: Date.now,
        log: silentLog,
        agentDid: null,
        gates: {
          of: () => {
            throw new Error("asks no gate");
          },
        },
        gate: null,
      };
      await expect(createInvite(ctx, {})).rejects.toMatchObject({ status: expect.any(Number) as number });
      expect(() => authority.assertCurrent()).toThrow();
    });
    expect(await rows("SELECT invite_id FROM invites")).toHaveLength(before);
  });

  test("says nothing of an operator that is not there but that", async () => {
    expect(await codeOf(operator, "operator/revoke", { operatorId: "01K00000000000000000000000" })).toBe(
      "PROXY_NOT_FOUND",
    );
  });
});
