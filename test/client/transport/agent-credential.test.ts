import { describe, expect, test } from "vitest";
import { createAgentClient, type CredentialStore } from "../../../src/client/index.ts";
import { accept, ACCEPTED, refresh, setUp } from "../agent-under-test.ts";
import {
  BASE_URL,
  DAY_MS,
  fakeAgent,
  fakeAit,
  fakeGate,
  isProven,
  NOON_MS,
  PEER_DID,
  problem,
  proofOf,
  type Route,
} from "../fake-gate.ts";

const FOREVER = { token: "access-1", expiresAtMs: NOON_MS + 1_000 * DAY_MS };

describe("the access token", () => {
  test("is refreshed before it expires, once for all who wait, and stored before it is used", async () => {
    const { agent, gate, stored, keys, clock } = await setUp({});
    clock.nowMs += 900_000 - 59_000;
    await Promise.all([1, 2, 3].map((n) => agent.send({ to: PEER_DID, payload: n })));
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
    expect(gate.to("/hooks/agent").map(({ headers }) => headers.get("X-Claw-Agent-Access"))).toEqual(
      Array(3).fill("access-2"),
    );
    expect(stored).toMatchObject([{ access: { token: "access-2" }, refreshToken: "refresh-2" }]);
    const [request] = gate.to("/v1/agents/auth/refresh");
    expect(request?.headers.has("X-Claw-Agent-Access")).toBe(false);
    expect(request !== undefined && (await isProven(request, keys.publicKey))).toBe(true);
  });

  test("is left alone while it is fresh", async () => {
    const { agent, gate, clock } = await setUp({});
    clock.nowMs += 900_000 - 61_000;
    await agent.send({ to: PEER_DID, payload: 1 });
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(0);
  });

  test("that is refused is refreshed once, and the request is signed anew", async () => {
    const { agent, gate } = await setUp({
      "POST /hooks/agent": ({ headers }) =>
        headers.get("X-Claw-Agent-Access") === "access-2"
          ? { status: 202, json: ACCEPTED }
          : problem(401, "PROXY_AGENT_ACCESS_INVALID"),
    });
    await Promise.all([1, 2].map((n) => agent.send({ to: PEER_DID, payload: n })));
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
    const nonces = gate.to("/hooks/agent").map((request) => proofOf(request)?.nonce);
    expect(new Set(nonces).size).toBe(4);
  });

  test("that is refused late, when another call has long renewed it, is not refreshed once more", async () => {
    const late = Promise.withResolvers<void>();
    const { agent, gate } = await setUp({
      "POST /hooks/agent": async ({ headers, body }) => {
        if (headers.get("X-Claw-Agent-Access") !== "access-1") return { status: 202, json: ACCEPTED };
        if (body === '"late"') await late.promise;
        return problem(401, "PROXY_AGENT_ACCESS_INVALID");
      },
    });
    const slow = agent.send({ to: PEER_DID, payload: "late" });
    await agent.send({ to: PEER_DID, payload: "early" });
    late.resolve();
    await slow;
    expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
  });

  test("that is refused again after a refresh is the caller's to know", async () => {
    const { agent, gate } = await setUp({ "POST /hooks/agent": () => problem(401, "PROXY_AGENT_ACCESS_INVALID") });
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({
      code: "PROXY_AGENT_ACCESS_INVALID",
    });
    expect(gate.to("/hooks/agent")).toHaveLength(2);
  });

  test("whose answer was lost is asked for again with the same refresh token", async () => {
    let lost = 0;
    const { agent, gate } = await setUp({
      "POST /v1/agents/auth/refresh": (request) => {
        lost += 1;
        if (lost === 1) throw new TypeError("connection reset");
        return refresh(request);
      },
    });
    await agent.refresh();
    expect(gate.to("/v1/agents/auth/refresh").map(({ body }) => body)).toEqual(
      Array(2).fill('{"refreshToken":"refresh-1"}'),
    );
    expect(agent.credential().access.token).toBe("access-2");
  });

  test("that cannot be refreshed fails with the server's word, and the next call tries anew", async () => {
    let isRefused = true;
    const { agent } = await setUp({
      "POST /v1/agents/auth/refresh": (request) =>
        isRefused ? problem(401, "PROXY_AUTH_INVALID_TOKEN") : refresh(request),
    });
    await expect(agent.refresh()).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_TOKEN" });
    isRefused = false;
    await agent.refresh();
    expect(agent.credential().refreshToken).toBe("refresh-2");
  });
});

describe("the identity token", () => {
  const NEXT = fakeAit({ issuedAtMs: NOON_MS, expiresAtMs: NOON_MS + 60 * DAY_MS });
  const reissue: Route = () => ({ json: { ait: NEXT } });

  test("is reissued within a day of its end, once for all who wait", async () => {
    const { agent, gate, clock, stored } = await setUp({ "POST /v1/agents/reissue": reissue }, { access: FOREVER });
    clock.nowMs += 29 * DAY_MS + 1;
    await Promise.all([1, 2].map((n) => agent.send({ to: PEER_DID, payload: n })));
    expect(gate.to("/v1/agents/reissue")).toHaveLength(1);
    expect(gate.to("/hooks/agent").map(({ headers }) => headers.get("Authorization"))).toEqual(
      Array(2).fill(`Claw ${NEXT}`),
    );
    expect(stored.map(({ ait }) => ait)).toEqual([NEXT]);
  });

  test("is left alone before that", async () => {
    const { agent, gate, clock } = await setUp({ "POST /v1/agents/reissue": reissue }, { access: FOREVER });
    clock.nowMs += 28 * DAY_MS;
    await agent.send({ to: PEER_DID, payload: 1 });
    expect(gate.to("/v1/agents/reissue")).toHaveLength(0);
  });

  test("that has expired by the server's clock too is said to have", async () => {
    const { agent, gate, clock } = await setUp(
      { "GET /v1/time": () => ({ json: { unixMs: NOON_MS + 30 * DAY_MS } }) },
      { access: FOREVER },
    );
    clock.nowMs += 30 * DAY_MS;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "CREDENTIAL_EXPIRED" });
    expect(gate.seen.map(({ path }) => path)).toEqual(["/v1/time"]);
  });

  test("that has expired only by a clock that is wrong still serves", async () => {
    const { agent, gate, clock } = await setUp(
      { "GET /v1/time": () => ({ json: { unixMs: NOON_MS } }) },
      { access: FOREVER },
    );
    clock.nowMs += 60 * DAY_MS;
    await agent.send({ to: PEER_DID, payload: 1 });
    const [request] = gate.to("/hooks/agent");
    expect(request === undefined ? null : proofOf(request)?.createdSeconds).toBe(NOON_MS / 1_000);
  });

  test.each([
    ["the server is busy", () => problem(503, "PROXY_AUTH_DEPENDENCY_UNAVAILABLE")],
    ["there is no answer", () => Promise.reject(new TypeError("reset"))],
  ])("still serves while it is good and %s", async (_what, route) => {
    const { agent, gate, clock } = await setUp({ "POST /v1/agents/reissue": route }, { access: FOREVER });
    clock.nowMs += 29 * DAY_MS + 1;
    await agent.send({ to: PEER_DID, payload: 1 });
    await agent.send({ to: PEER_DID, payload: 2 });
    expect(gate.to("/hooks/agent")).toHaveLength(2);
    expect(gate.to("/v1/agents/reissue")).toHaveLength(1);
  });

  test.each([
    ["holds a minute from now", { notBeforeMs: NOON_MS + 60_000 }, 30_000],
    ["holds a second from now", { notBeforeMs: NOON_MS + 1_000 }, 1_000],
    ["was issued a minute ago", { notBeforeMs: NOON_MS - 60_000 }, 1_000],
  ])("that is refused and %s is tried again later, and is not over", async (_what, life, retryAfterMs) => {
    const token = fakeAit({ issuedAtMs: NOON_MS - 70_000, expiresAtMs: NOON_MS + 60 * DAY_MS, ...life });
    const routes = { "POST /hooks/agent": () => problem(401, "PROXY_AUTH_INVALID_AIT") };
    const { agent } = await setUp(routes, { ait: token, access: FOREVER });
    const sent = agent.send({ to: PEER_DID, payload: 1 });
    await expect(sent).rejects.toMatchObject({ code: "CREDENTIAL_NOT_YET_VALID", retryAfterMs });
  });

  test("that is refused long after it was issued is refused", async () => {
    const { agent, clock } = await setUp({ "POST /hooks/agent": () => problem(401, "PROXY_AUTH_INVALID_AIT") });
    clock.nowMs += 120_000;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "PROXY_AUTH_INVALID_AIT" });
  });

  test("that has expired by a server whose clock is too far ahead is said to have", async () => {
    const { agent, clock } = await setUp(
      { "GET /v1/time": () => ({ json: { unixMs: NOON_MS + 40 * DAY_MS } }) },
      { access: FOREVER },
    );
    clock.nowMs += 30 * DAY_MS;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "CREDENTIAL_EXPIRED" });
  });

  test("that was revoked ends the call", async () => {
    const { agent, clock } = await setUp(
      { "POST /v1/agents/reissue": () => problem(401, "PROXY_AUTH_REVOKED") },
      { access: FOREVER },
    );
    clock.nowMs += 29 * DAY_MS + 1;
    await expect(agent.send({ to: PEER_DID, payload: 1 })).rejects.toMatchObject({ code: "PROXY_AUTH_REVOKED" });
  });
});

test("a credential that processes share is not refreshed by the second with a token that the first has used up", async () => {
  const { keys, credential } = await fakeAgent();
  const gate = fakeGate({ "POST /hooks/agent": accept, "POST /v1/agents/auth/refresh": refresh });
  let stored = credential;
  const store: CredentialStore = { update: async (renew) => (stored = await renew(stored)) };
  const open = () =>
    createAgentClient({ baseUrl: BASE_URL, keys, credential, fetch: gate.fetch, now: () => NOON_MS + 900_000, store });
  const [one, other] = [open(), open()];
  await one.send({ to: PEER_DID, payload: 1 });
  await other.send({ to: PEER_DID, payload: 2 });
  expect(gate.to("/v1/agents/auth/refresh")).toHaveLength(1);
  expect(other.credential().refreshToken).toBe("refresh-2");
});

test("a refresh and a reissue at once lose nothing of each other", async () => {
  const ait = fakeAit({ issuedAtMs: NOON_MS, expiresAtMs: NOON_MS + 60 * DAY_MS });
  const { agent, stored } = await setUp({ "POST /v1/agents/reissue": () => ({ json: { ait } }) });
  await Promise.all([agent.refresh(), agent.reissue()]);
  expect(agent.credential()).toMatchObject({ ait, access: { token: "access-2" }, refreshToken: "refresh-2" });
  expect(stored.at(-1)).toEqual(agent.credential());
});
