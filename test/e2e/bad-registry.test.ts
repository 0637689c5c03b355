/** Registry documents that are wrong, served to the real program: what is refused whole, what is left out, and that the last good one goes on. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Agent, hookOf, request } from "../support/program/agents.ts";
import {
  keysDocument,
  REGISTRY_ISSUER,
  type RegistryKey,
  type RegistryServer,
  startRegistry,
} from "../support/program/registry-server.ts";
import { logLines, type Proxy, startProxy } from "../support/program/proxy.ts";

let registry: RegistryServer;
let proxy: Proxy;
let agent: Agent;

beforeAll(async () => {
  registry = await startRegistry();
  proxy = await startProxy({
    REGISTRY_URL: registry.url,
    REGISTRY_ISSUER,
    // Every second the keys are asked for anew, however often that has failed.
    KEYS_TTL_MS: "1000",
    BREAKER_FAILURES: "1000",
  });
  agent = registry.issue();
}, 120_000);
afterAll(async () => {
  await proxy?.stop();
  await registry?.down();
});

const RECIPIENT = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000000";

/** Whether an identity token under this key is believed: then only trust is missing. */
async function isBelieved(key: RegistryKey): Promise<boolean> {
  const { status, body } = await request(
    proxy.url,
    { ...agent, ait: registry.ait(agent, {}, { key }) },
    hookOf(RECIPIENT, {}),
  );
  if (status === 403) return true;
  expect({ status, code: body["code"] }).toEqual({ status: 401, code: "PROXY_AUTH_INVALID_AIT" });
  return false;
}

/** Serves a document and waits until the proxy has asked for it twice: the second time, the first has been judged. */
async function served(document: string, contentType?: string): Promise<void> {
  registry.serve("keys", { status: 200, body: document, ...(contentType === undefined ? {} : { contentType }) });
  const from = registry.calls.keys;
  for (let tries = 0; registry.calls.keys < from + 2; tries++) {
    if (tries > 150) throw new Error("the proxy did not ask for the keys");
    // oxlint-disable-next-line no-await-in-loop -- asked until it asks
    expect(await isBelieved(registry.key)).toBe(true);
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

describe("a keys document", () => {
  test("with one malformed key among good ones: that one is left out and logged, the rest counts", async () => {
    const good = registry.newKey("kid-good");
    const malformed = registry.newKey("kid-malformed");
    await served(keysDocument(registry.key.entry, { ...malformed.entry, x: "short" }, "nonsense", good.entry));
    expect(await isBelieved(good)).toBe(true);
    expect(await isBelieved(malformed)).toBe(false);
    const left = logLines(proxy.output()).filter(({ event }) => event === "registry.key_left_out");
    expect(new Set(left.map(({ index }) => index))).toEqual(new Set([1, 2]));
  });

  test.each<[string, (added: RegistryKey) => [string, string?]]>([
    [
      "with a kid twice",
      (added) => [keysDocument(registry.key.entry, added.entry, { ...registry.newKey("x").entry, kid: added.kid })],
    ],
    [
      "with a kid twice, once malformed",
      (added) => [keysDocument(registry.key.entry, added.entry, { kid: added.kid })],
    ],
    ["of 5 MB", (added) => [keysDocument(registry.key.entry, added.entry, { padding: "x".repeat(5_000_000) })]],
    ["that is HTML", () => ["<!doctype html><title>Sign in</title>", "text/html"]],
    ["that is no JSON", () => ["{"]],
    ["that is no keys document", (added) => [JSON.stringify([registry.key.entry, added.entry])]],
  ])("%s is refused whole, and the last good one goes on", async (_, documentWith) => {
    const added = registry.newKey(`kid-${Math.random()}`);
    await served(...documentWith(added));
    expect(await isBelieved(added)).toBe(false);
    expect(await isBelieved(registry.key)).toBe(true);
  });

  test("that revokes a key ends it at the next refresh, for tokens verified before too", async () => {
    const doomed = registry.newKey("kid-doomed");
    await served(keysDocument(registry.key.entry, doomed.entry));
    const ait = registry.ait(agent, {}, { key: doomed });
    const believed = () => request(proxy.url, { ...agent, ait }, hookOf(RECIPIENT, {}));
    expect((await believed()).status).toBe(403);
    await served(keysDocument(registry.key.entry, { ...doomed.entry, status: "revoked" }));
    expect(await believed()).toMatchObject({ status: 401, body: { code: "PROXY_AUTH_INVALID_AIT" } });
  });
});
