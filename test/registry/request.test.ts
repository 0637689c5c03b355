import { afterEach, describe, expect, test, vi } from "vitest";
import { askRegistry, externalRegistry } from "../../src/registry/request.ts";
import { createFakeRegistry, createIsolate } from "./fixture.ts";

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("an external registry", () => {
  test("is asked below its base URL, follows no redirect with an access token, and can be cut off", async () => {
    const fetched = vi.fn<typeof fetch>(async () => new Response(null, { status: 204 }));
    vi.stubGlobal("fetch", fetched);
    const { signal } = new AbortController();
    const init = { method: "POST", headers: { "X-Claw-Agent-Access": "t" }, body: "{}" };
    await externalRegistry("https://registry.example.test/base")("/v1/crl", init, signal);
    expect(fetched).toHaveBeenCalledWith("https://registry.example.test/base/v1/crl", {
      method: "POST",
      headers: { Accept: "application/json", "X-Claw-Agent-Access": "t" },
      body: "{}",
      redirect: "manual",
      signal,
    });
  });
});

const ask = (response: Response) => {
  const { scope } = createIsolate(createFakeRegistry([]));
  const mine = { ...scope(), fetch: async () => response };
  return askRegistry(mine, { path: "/x", answers: { 200: 4, 204: 0 } }, new AbortController().signal);
};

describe("an answer", () => {
  test.each([
    { answer: "a short body", response: () => new Response("1234"), outcome: { ok: true, value: { status: 200 } } },
    { answer: "a long body", response: () => new Response("12345"), outcome: { ok: false } },
    {
      answer: "a body announced as long",
      response: () => new Response("1", { headers: { "Content-Length": "5" } }),
      outcome: { ok: false, error: { reason: "document too large" } },
    },
    {
      answer: "another status with Retry-After",
      response: () => new Response("no", { status: 503, headers: { "Retry-After": "7" } }),
      outcome: { ok: false, error: { reason: "status 503", retryAfterMs: 7_000 } },
    },
  ])("with $answer", async ({ response, outcome }) => {
    expect(await ask(response())).toMatchObject(outcome);
  });

  test("whose body is not wanted gives its connection back", async () => {
    let isCancelled = false;
    const body = new ReadableStream({
      cancel() {
        isCancelled = true;
      },
    });
    await ask(new Response(body, { status: 500 }));
    expect(isCancelled).toBe(true);
  });
});
