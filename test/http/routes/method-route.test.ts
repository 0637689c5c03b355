/** The operator's routes, and whose gate they run in. */
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { app } from "../../../src/app.ts";
import { newDid } from "../../../src/wire/did.ts";
import { newUlid } from "../../../src/wire/ulid.ts";
import { newKeyPair } from "../../identity/fixture.ts";

const stranger = newDid("registry.sallyport.example", "agent", newUlid(Date.now()));

/** Asks as the operator. */
async function ask(method: string, path: string, body?: unknown) {
  const gates: string[] = [];
  const noting = {
    ...env,
    GATE: { getByName: (did: string) => (gates.push(did), env.GATE.getByName(did)) },
  } as unknown as Env;
  const request = new Request(`https://proxy.example.com${path}`, {
    method,
    headers: { Authorization: `Bearer ${env.OPERATOR_TOKEN}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answer = await app.fetch(request, noting, createExecutionContext());
  return { status: answer.status, body: await answer.json<Record<string, unknown>>(), gates };
}

const agentNamed = async (name: string) => ({ name, framework: "test", publicKey: (await newKeyPair()).publicKey });

describe("an agentDid that a route does not take", () => {
  test.each<[string, unknown]>([
    ["no DID", "mine"],
    ["a number", 5],
    ["an agent's DID", stranger],
  ])("is ignored, and no gate is asked, where it is %s", async (_what, agentDid) => {
    const registered = await ask("POST", "/v1/agents", { ...(await agentNamed("stray")), agentDid });
    expect(registered).toMatchObject({ status: 201, gates: [] });
    expect(registered.body["agentDid"]).not.toBe(agentDid);

    const { kid } = (await ask("POST", "/v1/keys/rotate", { agentDid })).body;
    await ask("POST", "/v1/keys/rotate");
    expect(await ask("POST", "/v1/keys/revoke", { kid, agentDid })).toMatchObject({ status: 200, gates: [] });

    const listed = await ask("GET", `/v1/agents?agentDid=${encodeURIComponent(String(agentDid))}`);
    expect(listed).toMatchObject({ status: 200, gates: [] });
  });
});

describe("an agentDid that a route asks for", () => {
  test("names the gate that the call runs in", async () => {
    const { body } = await ask("POST", "/v1/agents", await agentNamed("named"));
    const agentDid = String(body["agentDid"]);
    const path = `/v1/dead-letters?agentDid=${encodeURIComponent(agentDid)}`;
    expect(await ask("GET", path)).toMatchObject({ status: 200, body: { deadLetters: [] }, gates: [agentDid] });
    const revoked = await ask("POST", "/v1/agents/revoke", { agentDid });
    expect(revoked).toMatchObject({ status: 200, gates: [agentDid] });
  });

  test.each([
    ["GET", "/v1/dead-letters"],
    ["GET", "/v1/dead-letters?agentDid=zz"],
    ["POST", "/v1/dead-letters/1/replay"],
    ["DELETE", "/v1/dead-letters/1?agentDid=zz"],
  ])("is refused where it is missing or no DID: %s %s", async (method, path) => {
    expect(await ask(method, path)).toMatchObject({ status: 400, body: { code: "PROXY_BAD_REQUEST" }, gates: [] });
  });
});
