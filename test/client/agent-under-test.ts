/** An agent's client before a Sallyport of the test's own, with a clock that stands still. */
import { type AgentCredential, createAgentClient } from "../../src/client/index.ts";
import { BASE_URL, DAY_MS, fakeAgent, fakeGate, NOON_MS, type Route } from "./fake-gate.ts";

export const ACCEPTED = {
  accepted: true,
  deliveryId: "d_1",
  state: "queued",
  delivered: false,
  queued: true,
  queueDepth: 1,
};
export const accept: Route = () => ({ status: 202, json: ACCEPTED });
export const refresh: Route = ({ body }) => {
  const { refreshToken } = JSON.parse(body) as { refreshToken: string };
  const next = Number(refreshToken.split("-")[1]) + 1;
  return {
    json: { access: { token: `access-${next}`, expiresAtMs: NOON_MS + 2 * DAY_MS }, refreshToken: `refresh-${next}` },
  };
};

export async function setUp(routes: Record<string, Route>, change: Partial<AgentCredential> = {}) {
  const { keys, credential } = await fakeAgent(change);
  const gate = fakeGate({ "POST /hooks/agent": accept, "POST /v1/agents/auth/refresh": refresh, ...routes });
  const clock = { nowMs: NOON_MS };
  const stored: AgentCredential[] = [];
  const agent = createAgentClient({
    baseUrl: BASE_URL,
    keys,
    credential,
    fetch: gate.fetch,
    now: () => clock.nowMs,
    onCredential: (next) => void stored.push(next),
    onClockCorrection: () => undefined,
  });
  return { agent, gate, keys, credential, clock, stored };
}
