/** The program beside a registry of the tests' own, for everything that a caller may get wrong, and what is expected of its answers. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect } from "vitest";
import { type Agent, type Answer, hookOf, pair, send, type Signed, signedHeaders } from "../support/program/agents.ts";
import {
  keysDocument,
  REGISTRY_ISSUER,
  type RegistryServer,
  startRegistry,
} from "../support/program/registry-server.ts";
import { proofHeaders } from "../support/signing.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { type RawAnswer } from "./raw-http.ts";

export const MIB = 1_048_576;
export const UNKNOWN = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000000";

export let registry: RegistryServer;
export let proxy: Proxy;
export let alice: Agent;
export let bob: Agent;
/** Whoever asks the registry about this one's key causes a refresh. */
export let stranger: Agent;

/** Starts both before the tests of a file, with the agents. @param arePaired whether Alice and Bob trust each other */
export function serveForBadInput({ arePaired }: { arePaired: boolean }): void {
  beforeAll(async () => {
    registry = await startRegistry();
    const revoked = registry.newKey("kid-revoked");
    registry.serve("keys", {
      status: 200,
      body: keysDocument(registry.key.entry, { ...revoked.entry, status: "revoked" }),
    });
    proxy = await startProxy({ REGISTRY_URL: registry.url, REGISTRY_ISSUER, RATE_LIMIT_PER_AGENT: "0" });
    [alice, bob, stranger] = [registry.issue(), registry.issue(), registry.issue()];
    stranger.ait = strangersAit();
    // Housekeeping keeps the list fresh by itself; what is counted afterwards is what requests cost.
    await until(
      async () => registry.calls,
      ({ keys, crl }) => keys > 0 && crl > 0,
    );
    if (arePaired) expect(await pair(proxy.url, alice, bob)).toMatchObject({ status: 201 });
  });
  afterAll(async () => {
    await proxy?.stop();
    await registry?.down();
  });
}

/** Nothing has failed inside, and no secret has been printed. */
export function expectNoHarm(): void {
  const output = proxy.output();
  expect(output).not.toContain('"level":"error"');
  for (const secret of [alice.ait, bob.ait, alice.accessToken, bob.accessToken, alice.ait.split(".")[2] ?? "?"])
    expect(output).not.toContain(secret);
}

/** The shape of RFC 9457 and of the contract, and the headers that belong to a status. */
export function expectProblem(
  answer: { status: number; headers: { get(name: string): string | null | undefined }; body: unknown },
  status: number,
  code: string,
): void {
  expect({ status: answer.status, code: (answer.body as { code?: unknown }).code }).toEqual({ status, code });
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.body).toEqual({
    type: expect.stringMatching(/^urn:/),
    title: expect.stringMatching(/./),
    status,
    detail: expect.stringMatching(/./),
    code,
    requestId: answer.headers.get("x-request-id"),
  });
  if (status === 401) expect(answer.headers.get("www-authenticate")).toMatch(/realm=/);
  if (status === 429 || status === 503) expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
}

export function expectRawProblem({ status, headers, body }: RawAnswer, expectedStatus: number, code: string): void {
  expectProblem({ status, headers, body: JSON.parse(body) as unknown }, expectedStatus, code);
}

export const hook = (over: Partial<Signed> = {}): Signed => ({ ...hookOf(bob.did, { hello: "bob" }), ...over });

/** A send whose headers are right but for what is changed; undefined takes a header away. */
export function sendWith(
  changed: Record<string, string | undefined>,
  signed: Signed = hook(),
  agent: Agent = alice,
): Promise<Answer> {
  const headers = { ...signedHeaders(agent, signed), ...changed };
  return send(
    proxy.url,
    signed,
    Object.fromEntries(Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined)),
  );
}

/** The headers of a request whose proof was made over something else. */
export function provenOver(
  other: Partial<{ method: string; path: string; body: string; bodySha256: string }>,
  signed: Signed = hook(),
): Record<string, string> {
  const headers = signedHeaders(alice, signed);
  const { method, path, body = "" } = { ...signed, ...other };
  const [timestamp, nonce] = [headers["X-Claw-Timestamp"], headers["X-Claw-Nonce"]];
  return {
    ...headers,
    ...proofHeaders(alice.privateKey, { method, path, body, bodySha256: other.bodySha256, timestamp, nonce }),
  };
}

/** Right in every way but that no registry knows its key. */
export const strangersAit = (over: Record<string, unknown> = {}, header: Record<string, unknown> = {}): string =>
  registry.ait(stranger, over, { key: registry.newKey(randomUUID()), header });
export const withAit = (ait: string): Record<string, string> => ({ Authorization: `Claw ${ait}` });
export const nowSeconds = (): number => Math.floor(Date.now() / 1_000);

export const b64 = (bytes: number): string => Buffer.alloc(bytes, 1).toString("base64url");

/** Asks until the answer fits; for what other gates bring about. */
export async function until<T>(ask: () => Promise<T>, fits: (answer: T) => boolean): Promise<T> {
  for (let tries = 0; ; tries++) {
    // oxlint-disable-next-line no-await-in-loop -- one look after the other
    const answer = await ask();
    if (fits(answer)) return answer;
    if (tries >= 1_200) throw new Error(`never came: ${JSON.stringify(answer).slice(0, 500)}`);
    // oxlint-disable-next-line no-await-in-loop
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
