/** Agents whose clocks are off, against the real program: what is accepted with a warning, what is refused, what the client does about it. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAgentClient, createOperatorClient, generateKeys } from "../../src/client/index.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { logLines, type Proxy, startProxy } from "../support/program/proxy.ts";
import { parseOpenMetrics, valueOf } from "../telemetry/open-metrics-parser.ts";

/** How late a request may arrive on a busy machine and still be of the same kind: warned of from 200 s, refused beyond 300 s. */
const LATE_MS = 45_000;

describe("an agent whose clock is off", () => {
  let proxy: Proxy;
  beforeAll(async () => {
    proxy = await startProxy();
  });
  afterAll(() => proxy.stop());

  const operator = () => createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });
  const newClient = async (name: string, aheadMs = 0) => {
    const keys = await generateKeys();
    const registered = await operator().registerAgent({ name, framework: "test", publicKey: keys.publicKey });
    const codes: string[] = [];
    const client = createAgentClient({
      baseUrl: proxy.url,
      keys,
      credential: registered,
      now: () => Date.now() + aheadMs,
      fetch: async (url, init) => {
        const answer = await fetch(url, init);
        codes.push(`${answer.status} ${new URL(url).pathname}`);
        return answer;
      },
    });
    return { client, codes };
  };
  const scrape = async () =>
    parseOpenMetrics(
      await (await fetch(`${proxy.url}/metrics`, { headers: { Authorization: `Bearer ${OPERATOR_TOKEN}` } })).text(),
    );

  test.each([250, -250])(
    "a skew of %i s is accepted, warned of with the agent, counted, and told to the admin",
    async (seconds) => {
      const { client, codes } = await newClient("off", seconds * 1_000);
      await client.pairing.peers();
      expect(codes).toEqual(["200 /pair/peers"]);
      const mine = (event: string) =>
        logLines(proxy.output()).filter((line) => line["event"] === event && line["agentDid"] === client.agentDid);
      await expect.poll(() => mine("auth.clock_skew").length, { timeout: LATE_MS }).toBeGreaterThan(0);
      const [warning] = mine("auth.clock_skew");
      expect(Math.abs(Number(warning?.["skewMs"]) - seconds * 1_000)).toBeLessThan(LATE_MS);
      expect(mine("auth.decision").at(-1)).toMatchObject({ outcome: "accepted", skewMs: warning?.["skewMs"] });
      const direction = seconds > 0 ? "ahead" : "behind";
      const families = await scrape();
      expect(valueOf(families, "sallyport_clock_skew_warnings_total", { direction })).toBeGreaterThanOrEqual(1);
      expect(valueOf(families, "sallyport_agent_clock_drifts_total", { direction })).toBe(1);
      const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
      const body = JSON.stringify({
        jsonrpc: "2.0",
        id: 1,
        method: "audit/list",
        params: { action: "agent.clock_drift" },
      });
      const audit = async () => (await fetch(`${proxy.url}/rpc`, { method: "POST", headers, body })).text();
      await expect.poll(audit, { timeout: LATE_MS }).toContain(client.agentDid);
    },
  );

  test.each([345, -302])("a skew of %i s is refused, and the client corrects itself", async (seconds) => {
    const { client, codes } = await newClient("far off", seconds * 1_000);
    await client.pairing.peers();
    expect(codes).toEqual(["401 /pair/peers", "200 /v1/time", "200 /pair/peers"]);
    await client.pairing.peers();
    expect(codes.at(-1)).toBe("200 /pair/peers");
    expect(codes).toHaveLength(4);
  });
});
