import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import * as z from "zod/mini";
import { ROOT } from "../../src/authority/operator.ts";
import { OPERATOR_ROLES } from "../../src/wire/operator-role.ts";
import type { Principal } from "../../src/authority/principal.ts";
import { SCOPES } from "../../src/authority/scopes.ts";
import type { CallContext } from "../../src/call/context.ts";
import { createDispatcher } from "../../src/rpc/dispatcher.ts";
import type { Method } from "../../src/rpc/method.ts";
import { PERMISSIONS } from "../../src/rpc/permissions.ts";
import { runtimeOf } from "../../src/runtime.ts";
import type { AgentDid, HumanDid } from "../../src/wire/did.ts";
import matrix from "./permission-matrix.json" with { type: "json" };
import { silentLog } from "../support/silent-log.ts";

const agentDid = "did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A" as AgentDid;
const ownerDid = "did:cdi:registry.sallyport.example:human:01JDA00000000000000000000B" as HumanDid;

/** Every kind of principal, and those with scopes once for each scope alone. */
const principals: Record<string, Principal> = {
  ...Object.fromEntries(OPERATOR_ROLES.map((role) => [`operator ${role}`, { ...ROOT, name: role, role }])),
  invite: { kind: "invite", inviteId: "i", ownerDid, tenantId: "t" },
  agent: { kind: "agent", agentDid, ownerDid, jti: "j", expMs: 1, keyX: "x" },
  shared: { kind: "shared", agentDid, generation: 1 },
  "device without scopes": { kind: "device", agentDid, ownerDid, deviceId: "d", scopes: [], epoch: 1, expMs: 1 },
  ...Object.fromEntries(
    SCOPES.flatMap((scope): [string, Principal][] => [
      [`device ${scope}`, { kind: "device", agentDid, ownerDid, deviceId: "d", scopes: [scope], epoch: 1, expMs: 1 }],
      [
        `apiKey ${scope}`,
        {
          kind: "apiKey",
          agentDid,
          apiKeyId: "k",
          serviceAccountId: "s",
          tenantId: "t",
          scopes: [scope],
          expMs: null,
          originator: "operator",
          lineage: [],
        },
      ],
    ]),
  ),
};

const { methods } = runtimeOf(env).dispatcher;

/** The methods as they are declared, with nothing behind them. */
const hollow = createDispatcher(
  methods.map((method): Method => ({
    ...method,
    params: z.unknown(),
    result: z.unknown(),
    handler: async () => "ran",
  })),
);

async function mayCall(method: Method, principal: Principal): Promise<boolean> {
  const ctx = {
    principal,
    authority: { assertCurrent() {} },
    now: () => 0,
    log: silentLog,
    agentDid: null,
    requestId: "r",
  };
  const reply = await hollow.dispatch(ctx as unknown as CallContext, method.surface, method.name, {});
  if (reply.ok) return true;
  expect(reply.code).toBe("PROXY_AUTH_FORBIDDEN");
  return false;
}

describe("permissions", () => {
  test("are those of the checked-in table, for every method and every principal", async () => {
    const walked: Record<string, string[]> = {};
    for (const method of methods) {
      const allowed: string[] = [];
      // oxlint-disable-next-line no-await-in-loop -- a walk
      for (const [name, principal] of Object.entries(principals))
        if (await mayCall(method, principal)) allowed.push(name);
      walked[method.name] = allowed.toSorted();
    }
    expect(walked).toEqual(matrix);
  });

  test("stand in one table, which holds no method that is not there", () => {
    expect(methods.map(({ name }) => name).toSorted()).toEqual(Object.keys(PERMISSIONS).toSorted());
    for (const { name, permission } of methods) expect(permission).toBe(PERMISSIONS[name as keyof typeof PERMISSIONS]);
  });
});
