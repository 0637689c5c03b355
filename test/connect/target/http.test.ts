/** A program behind an HTTP endpoint, answering in every way. */
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { describe, expect, onTestFinished, test } from "vitest";
import { FORMATS } from "../../../src/connect/format/formats.ts";
import type { Outcome } from "../../../src/connect/message.ts";
import { httpTarget } from "../../../src/connect/target/http.ts";
import { freePort } from "../../support/program/ports.ts";
import { delivery } from "../deliveries.ts";

const KEY = new Uint8Array(32).fill(7);

async function program(
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void,
): Promise<URL> {
  const server = createServer(
    (request, response) => void text(request).then((body) => answer(request, response, body)),
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/messages`);
}

function outcomeAt(url: URL, { timeoutMs = 5_000, signal = new AbortController().signal } = {}): Promise<Outcome> {
  const target = httpTarget({
    url,
    headers: { "X-Own": "yes" },
    format: FORMATS.sallyport,
    key: KEY,
    timeoutMs,
    now: Date.now,
  });
  return target(delivery(), signal);
}

const status = (code: number, headers: Record<string, string> = {}, body = ""): Promise<URL> =>
  program((_request, response) => response.writeHead(code, headers).end(body));

describe("an answer", () => {
  test.each([200, 201, 202, 204])("%i is handled", async (code) => {
    expect(await outcomeAt(await status(code))).toEqual({ kind: "handled" });
  });

  test.each([408, 425, 429, 500, 502, 503, 504])("%i is later", async (code) => {
    expect(await outcomeAt(await status(code))).toEqual({
      kind: "later",
      reason: `answered ${code}`,
      retryAfterMs: undefined,
    });
  });

  test("429 with Retry-After is later, after that time", async () => {
    expect(await outcomeAt(await status(429, { "Retry-After": "7" }))).toMatchObject({
      kind: "later",
      retryAfterMs: 7_000,
    });
  });

  test.each([400, 401, 403, 404, 410, 422])("%i is refused", async (code) => {
    expect(await outcomeAt(await status(code))).toEqual({ kind: "refused", reason: `the program answered ${code}` });
  });

  test.each(['{"reason":"not my job"}', '{"type":"about:blank","detail":"not my job"}'])(
    "a reason that is meant for the sender is handed on: %s",
    async (body) => {
      expect(await outcomeAt(await status(422, {}, body))).toEqual({ kind: "refused", reason: "not my job" });
    },
  );

  test("a page of an error is nobody's reason, and a reason is bounded", async () => {
    expect(await outcomeAt(await status(400, {}, "<html>secret stack trace"))).toMatchObject({
      reason: "the program answered 400",
    });
    const long = await outcomeAt(await status(400, {}, JSON.stringify({ reason: "\u{1F600}".repeat(2_000) })));
    expect([...(long as { reason: string }).reason].length).toBeLessThanOrEqual(512);
  });

  test("a redirect is not followed, and loses no message", async () => {
    let isReached = false;
    const elsewhere = await program((_request, response) => {
      isReached = true;
      response.end();
    });
    const outcome = await outcomeAt(await status(307, { Location: elsewhere.href }));
    expect(outcome).toMatchObject({ kind: "later", reason: "answered 307: redirects are not followed" });
    expect(isReached).toBe(false);
  });
});

describe("no answer", () => {
  test("nothing listens: later, said so", async () => {
    expect(await outcomeAt(new URL(`http://127.0.0.1:${await freePort()}/`))).toEqual({
      kind: "later",
      reason: "nothing listens there",
    });
  });

  test("one that hangs: later, after its time", async () => {
    const url = await program(() => undefined);
    expect(await outcomeAt(url, { timeoutMs: 50 })).toEqual({ kind: "later", reason: "no answer within 50 ms" });
  });

  test("one that says 200 has taken it, whatever becomes of the rest of its answer", async () => {
    const endless = await program((_request, response) => void response.writeHead(200).write("x"));
    expect(await outcomeAt(endless, { timeoutMs: 1_000 })).toEqual({ kind: "handled" });
    const cut = await program((_request, response) => {
      response.writeHead(200, { "Content-Length": "10" }).write("x", () => response.destroy());
    });
    expect(await outcomeAt(cut)).toEqual({ kind: "handled" });
  });

  test("one that is cut: later", async () => {
    const url = await program((request) => request.socket.destroy());
    expect(await outcomeAt(url)).toMatchObject({ kind: "later" });
  });

  test("the connector ends meanwhile: as if it had not been handed over", async () => {
    const abort = new AbortController();
    const url = await program(() => abort.abort(new Error("the connector ends")));
    await expect(outcomeAt(url, { signal: abort.signal })).rejects.toThrow("the connector ends");
  });

  test("an endless answer is read no further than it says something", async () => {
    const url = await program((_request, response) => {
      response.writeHead(200);
      const more = (): void => {
        while (response.write("x".repeat(65_536)));
        response.once("drain", more);
      };
      more();
    });
    expect(await outcomeAt(url)).toEqual({ kind: "handled" });
  });
});

test("a request proves where it comes from: RFC 9421 by the shared key, over method, path, digest and delivery id", async () => {
  let seen: { request: IncomingMessage; body: string } | null = null;
  const url = await program((request, response, body) => {
    seen = { request, body };
    response.end();
  });
  await outcomeAt(url);
  const { request, body } = seen as unknown as { request: IncomingMessage; body: string };
  const { headers } = request;
  const parameters = String(headers["signature-input"]).replace("sallyport=", "");
  const base = [
    `"@method": POST`,
    `"@path": /messages`,
    `"content-digest": ${String(headers["content-digest"])}`,
    `"sallyport-delivery-id": ${String(headers["sallyport-delivery-id"])}`,
    `"@signature-params": ${parameters}`,
  ].join("\n");
  expect(headers["signature"]).toBe(`sallyport=:${createHmac("sha256", KEY).update(base).digest("base64")}:`);
  expect(headers["sallyport-signature"]).toBe(headers["signature"]);
  expect(headers["x-own"]).toBe("yes");
  expect(JSON.parse(body)).toMatchObject({ deliveryId: headers["sallyport-delivery-id"] });
});
