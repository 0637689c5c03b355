import { beforeEach, describe, expect, test, vi } from "vitest";
import { accessValidationResponse } from "../../../src/identity/documents/documents.ts";
import { judgeRefresh, type Refreshed, type RefreshRow } from "../../../src/identity/tokens/refresh.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import { isAccessValid } from "../../../src/identity/tokens/token-pairs.ts";
import {
  agentCall,
  call,
  claimsOf,
  clock,
  codeOf,
  DAY_MS,
  did,
  heldDatabase,
  newKeyPair,
  NOW_MS,
  operatorCall,
  operatorCallAbout,
  registered,
  registry,
  rows,
  SECOND_MS,
  source,
  type TestAgent,
} from "../fixture.ts";

beforeEach(() => {
  clock.ms = NOW_MS;
});

const refresh = (agent: TestAgent, refreshToken: string): Promise<Refreshed> =>
  call<Refreshed>(agentCall(agent), "identity.refresh", { refreshToken });

const isValid = (agent: TestAgent, token: string): Promise<boolean> =>
  isAccessValid(registry(), {
    token,
    agentDid: agent.credentials.agentDid,
    aitJti: claimsOf(agent.credentials.ait)["jti"] as string,
  });

test("a refresh: keeps the 500 latest pairs of a family, however often it is made", async () => {
  const agent = await registered();
  const [family] = await rows<{ family_id: string }>(
    "SELECT family_id FROM token_pairs WHERE agent_did = ?1",
    agent.credentials.agentDid,
  );
  await registry()
    .db.prepare(
      `INSERT INTO token_pairs (refresh_hash, access_hash, family_id, agent_did, key_x, issued_at_ms, access_expires_at_ms,
         refresh_expires_at_ms, used_at_ms)
       SELECT value, value, ?2, ?3, 'k', ?4, ?4, ?4, ?4 FROM json_each(?1)`,
    )
    .bind(
      JSON.stringify(Array.from({ length: 600 }, () => newUlid(NOW_MS))),
      family!.family_id,
      agent.credentials.agentDid,
      NOW_MS - DAY_MS,
    )
    .run();
  const next = await refresh(agent, agent.credentials.refreshToken);
  const kept = await rows("SELECT 1 FROM token_pairs WHERE family_id = ?1", family!.family_id);
  expect(kept).toHaveLength(500);
  clock.ms += SECOND_MS;
  expect((await refresh(agent, next.refreshToken)).refreshToken).toMatch(/^spr_/);
});

describe("a refresh", () => {
  test("hands out a fresh pair, and the access token before it lives to its end", async () => {
    const agent = await registered();
    clock.ms += 10 * SECOND_MS;
    const next = await refresh(agent, agent.credentials.refreshToken);
    expect(next.access.token).toMatch(/^spa_/);
    expect(next.refreshToken).toMatch(/^spr_/);
    expect(next.access.expiresAtMs).toBe(NOW_MS + 10 * SECOND_MS + 900_000);
    expect(await isValid(agent, next.access.token)).toBe(true);
    expect(await isValid(agent, agent.credentials.access.token)).toBe(true);
    clock.ms = NOW_MS + 900_000;
    expect(await isValid(agent, agent.credentials.access.token)).toBe(false);
    expect(await isValid(agent, next.access.token)).toBe(true);
  });

  test("may be repeated for 60 s: the lost pair ends, the family goes on", async () => {
    const agent = await registered();
    const lost = await refresh(agent, agent.credentials.refreshToken);
    clock.ms += 60 * SECOND_MS;
    const found = await refresh(agent, agent.credentials.refreshToken);
    expect(await isValid(agent, lost.access.token)).toBe(false);
    expect(await isValid(agent, found.access.token)).toBe(true);
    expect(await codeOf(refresh(agent, lost.refreshToken))).toBe("PROXY_AUTH_INVALID_TOKEN");
    expect(await codeOf(refresh(agent, found.refreshToken))).toBe("answered");
  });

  test("used again after 60 s ends the family, access tokens included, and the audit tells", async () => {
    const agent = await registered();
    const next = await refresh(agent, agent.credentials.refreshToken);
    clock.ms += 60 * SECOND_MS + 1;
    expect(await codeOf(refresh(agent, agent.credentials.refreshToken))).toBe("PROXY_AUTH_INVALID_TOKEN");
    expect(await isValid(agent, next.access.token)).toBe(false);
    expect(await codeOf(refresh(agent, next.refreshToken))).toBe("PROXY_AUTH_INVALID_TOKEN");
    const audit = await rows(
      "SELECT actor, result FROM audit WHERE action = 'identity.refresh.reuse' AND subject = ?1",
      `agent:${agent.credentials.agentDid}`,
    );
    expect(audit).toEqual([{ actor: `agent:${agent.credentials.agentDid}`, result: "family ended" }]);
  });

  test("used again once its successor has been used ends the family at once: no answer was lost", async () => {
    const agent = await registered();
    const second = await refresh(agent, agent.credentials.refreshToken);
    const third = await refresh(agent, second.refreshToken);
    expect(await codeOf(refresh(agent, agent.credentials.refreshToken))).toBe("PROXY_AUTH_INVALID_TOKEN");
    expect(await isValid(agent, third.access.token)).toBe(false);
  });

  test("by another agent's key ends the family of the stolen token", async () => {
    const [agent, thief] = [await registered(), await registered()];
    expect(await codeOf(refresh(thief, agent.credentials.refreshToken))).toBe("PROXY_AUTH_INVALID_TOKEN");
    expect(await isValid(agent, agent.credentials.access.token)).toBe(false);
    expect(await isValid(thief, thief.credentials.access.token)).toBe(true);
  });

  test("two at once with one token are both answered, and one pair lives", async () => {
    const agent = await registered();
    const use = (): Promise<Refreshed> => refresh(agent, agent.credentials.refreshToken);
    const pairs = await Promise.all([use(), use(), use(), use()]);
    const valid = await Promise.all(pairs.map((pair) => isValid(agent, pair.access.token)));
    expect(valid.filter(Boolean)).toHaveLength(1);
    const live = pairs[valid.indexOf(true)];
    expect(await codeOf(refresh(agent, live?.refreshToken ?? ""))).toBe("answered");
  });

  test("is refused after 30 days, and for what is no token of ours, with one and the same answer", async () => {
    const agent = await registered();
    clock.ms += 30 * DAY_MS;
    const answers = await Promise.allSettled(
      [agent.credentials.refreshToken, "spr_unknown", agent.credentials.access.token, "x".repeat(256)].map((token) =>
        refresh(agent, token),
      ),
    );
    const said = answers.map((answer) => (answer.status === "rejected" ? String(answer.reason) : "answered"));
    expect(new Set(said).size).toBe(1);
    expect(said[0]).toContain("refresh token is not accepted");
  });

  test.each([[""], ["x".repeat(257)], [undefined], [7], [null]])(
    "names its member in a bad body (%#)",
    async (refreshToken) => {
      const agent = await registered();
      await expect(call(agentCall(agent), "identity.refresh", { refreshToken })).rejects.toMatchObject({
        code: "PROXY_BAD_REQUEST",
        message: expect.stringMatching(/^refreshToken/),
      });
    },
  );

  test("that reaches the database after a revocation is undone by the fence, even if its gate is deaf", async () => {
    const agent = await registered();
    const held = heldDatabase();
    const late = codeOf(
      call(agentCall(agent, { db: held.db, isGateDeaf: true }), "identity.refresh", {
        refreshToken: agent.credentials.refreshToken,
      }),
    );
    await held.arrived;
    await call(operatorCallAbout(agent.credentials.agentDid), "identity.revoke", {
      agentDid: agent.credentials.agentDid,
    });
    held.release();
    expect(await late).toBe("PROXY_AUTH_REVOKED");
    expect(await rows("SELECT * FROM token_pairs WHERE agent_did = ?1", agent.credentials.agentDid)).toHaveLength(1);
  });
});

describe("the judgement of a refresh token", () => {
  const agentDid = did("did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A");
  const caller = { agentDid, keyX: "key" };
  const fresh: RefreshRow = {
    refreshHash: "hash",
    familyId: "family",
    agentDid,
    keyX: "key",
    expiresAtMs: NOW_MS + 1,
    usedAtMs: null,
    endedAtMs: null,
    familyEndedAtMs: null,
    successorHash: null,
    successorUsedAtMs: null,
  };
  const used: RefreshRow = { ...fresh, usedAtMs: NOW_MS - 60_000, successorHash: "next" };
  test.each<[string, RefreshRow | null, string]>([
    ["an unknown one", null, "refused"],
    ["an unused one", fresh, "first"],
    ["one in its last millisecond over", { ...fresh, expiresAtMs: NOW_MS }, "refused"],
    ["one of an ended family", { ...fresh, familyEndedAtMs: 1 }, "refused"],
    ["one of an ended family, by another key", { ...fresh, familyEndedAtMs: 1, keyX: "other" }, "refused"],
    ["one by another key", { ...fresh, keyX: "other" }, "reuse"],
    ["one used 60 s ago", used, "repeat"],
    ["one used 60.001 s ago", { ...used, usedAtMs: NOW_MS - 60_001 }, "reuse"],
    [
      "one used a moment ago, whose successor was used",
      { ...used, usedAtMs: NOW_MS, successorUsedAtMs: NOW_MS },
      "reuse",
    ],
    ["one superseded 60 s ago", { ...fresh, endedAtMs: NOW_MS - 60_000 }, "refused"],
    ["one superseded before that", { ...fresh, endedAtMs: NOW_MS - 60_001 }, "reuse"],
  ])("%s", (_, row, verdict) => {
    expect(judgeRefresh(row, caller, NOW_MS).kind).toBe(verdict);
  });
});

const ask = (token: string | null, body: unknown): Promise<Response> =>
  accessValidationResponse(
    source,
    new Request("https://registry.invalid/v1/agents/auth/validate", {
      method: "POST",
      headers: token === null ? {} : { "x-claw-agent-access": token },
      body: typeof body === "string" ? body : JSON.stringify(body),
    }),
  );

/** The validation of a body that comes in pieces of 1 KiB: so many, and what follows them. */
const askInPieces = (pieces: number, then: "the end" | "nothing") => {
  let pulled = 0;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        pulled += 1;
        if (pulled <= pieces) return controller.enqueue(new Uint8Array(1_024).fill(120));
        return then === "the end" ? controller.close() : new Promise<void>(() => {});
      },
    },
    { highWaterMark: 0 },
  );
  const request = { method: "POST", headers: new Headers({ "x-claw-agent-access": "spa_x" }), body };
  const answered = accessValidationResponse(source, request as unknown as Request);
  return { code: codeOf(answered), pulled: () => pulled };
};

const about = (agent: TestAgent) => ({
  agentDid: agent.credentials.agentDid,
  aitJti: claimsOf(agent.credentials.ait)["jti"],
});

describe("the validation of an access token", () => {
  test("says 204 for the agent's own token and identity token, and nothing else", async () => {
    const agent = await registered();
    const answer = await ask(agent.credentials.access.token, { ...about(agent), extra: 1 });
    expect([answer.status, await answer.text()]).toEqual([204, ""]);
  });

  test("says 401 for everything that does not fit together", async () => {
    const [agent, other] = [await registered(), await registered()];
    const cases: [string | null, unknown][] = [
      [null, about(agent)],
      ["", about(agent)],
      ["spa_unknown", about(agent)],
      ["spa_" + "x".repeat(10_000), about(agent)],
      [agent.credentials.refreshToken, about(agent)],
      [other.credentials.access.token, about(agent)],
      [agent.credentials.access.token, about(other)],
      [agent.credentials.access.token, { ...about(agent), aitJti: about(other).aitJti }],
      [other.credentials.access.token, { ...about(agent), aitJti: about(other).aitJti }],
      [agent.credentials.access.token, { ...about(agent), aitJti: newUlid(NOW_MS) }],
    ];
    for (const [token, body] of cases) expect(await codeOf(ask(token, body))).toBe("PROXY_AGENT_ACCESS_INVALID");
  });

  test("says 401 once the identity token has expired", async () => {
    const agent = await registered({ ttlSeconds: 60 });
    clock.ms += 60 * SECOND_MS;
    expect(await codeOf(ask(agent.credentials.access.token, about(agent)))).toBe("PROXY_AGENT_ACCESS_INVALID");
  });

  test.each([
    ["", "PROXY_BAD_REQUEST"],
    ["{", "PROXY_BAD_REQUEST"],
    ["null", "PROXY_BAD_REQUEST"],
    ['{"agentDid":"x","aitJti":"y"}', "PROXY_BAD_REQUEST"],
    [`{"agentDid":"${"x".repeat(5_000)}"}`, "PROXY_BODY_TOO_LARGE"],
  ])("refuses a body that is none (%#)", async (body, code) => {
    expect(await codeOf(ask("spa_x", body))).toBe(code);
  });

  test("reads no more of a body without end than a client needs to hear the answer", async () => {
    const { code, pulled } = askInPieces(40_000, "the end");
    expect(await code).toBe("PROXY_BODY_TOO_LARGE");
    expect(pulled()).toBeLessThan(20_000);
  });

  test("waits no longer than 5 s for the rest of a body, though its sender holds the connection", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const { code } = askInPieces(1, "nothing");
      await vi.advanceTimersByTimeAsync(5_000);
      expect(await code).toBe("PROXY_BAD_REQUEST");
    } finally {
      vi.useRealTimers();
    }
  });
});

test("another credential than the agent's own refreshes nothing", async () => {
  const { credentials } = await registered();
  expect(await codeOf(call(operatorCall(), "identity.refresh", { refreshToken: credentials.refreshToken }))).toBe(
    "PROXY_AUTH_FORBIDDEN",
  );
});

test("a pair handed out before a re-key is not refreshed by the new key", async () => {
  const agent = await registered();
  const { publicKey } = await newKeyPair();
  const params = { agentDid: agent.credentials.agentDid, publicKey };
  await call(operatorCallAbout(agent.credentials.agentDid), "identity.rekey", params);
  const rekeyed = { ...agent, publicKey };
  expect(await codeOf(refresh(rekeyed, agent.credentials.refreshToken))).toBe("PROXY_AUTH_INVALID_TOKEN");
});
