import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { eventually, gateStub, newAgentDid, queuedMessage } from "../../support/gate.ts";
import { authorization, fetchWorker, operator, register, rows } from "../../support/world.ts";
import type { AgentDid } from "../../../src/wire/did.ts";

describe("what the operator does with an agent's dead letters", () => {
  test("is in the audit once each, and not where there was none", async () => {
    const did = (await register()).did as AgentDid;
    const letters = [queuedMessage({ createdAtMs: 1 }), queuedMessage({ createdAtMs: 1 })];
    await gateStub(did).receive(newAgentDid(), letters);
    const ask = async (method: string, path: string): Promise<number> => {
      const url = `https://proxy.example/v1/dead-letters/${path}?agentDid=${did}`;
      return (await fetchWorker(new Request(url, { method, headers: await authorization(operator, "") }), env)).status;
    };
    const [replayed, purged] = letters.map(({ deliveryId }) => deliveryId);
    expect(await ask("POST", `${replayed}/replay`)).toBe(200);
    expect(await ask("DELETE", `${purged}`)).toBe(200);
    expect(await ask("POST", `${purged}/replay`)).toBe(404);
    expect(await ask("DELETE", `${purged}`)).toBe(404);
    await eventually(async () =>
      expect(
        await rows(
          "SELECT action, subject, actor, result FROM audit WHERE agent_did = ?1 AND action LIKE 'dead-letter%' ORDER BY action DESC",
          did,
        ),
      ).toEqual([
        { action: "dead-letter.replay", subject: `delivery:${replayed}`, actor: "operator", result: "ok" },
        { action: "dead-letter.purge", subject: `delivery:${purged}`, actor: "operator", result: "ok" },
      ]),
    );
  });
});
