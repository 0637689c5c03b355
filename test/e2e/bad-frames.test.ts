/** What may be wrong on a relay socket. */
import { describe, expect, test } from "vitest";
import { request } from "../support/program/agents.ts";
import { head, type RawAnswer, rawHttp } from "./raw-http.ts";
import { connectRelay, openRelay, type RelayClient, ulid } from "../support/program/relay-client.ts";
import {
  alice,
  bob,
  expectNoHarm,
  expectRawProblem,
  MIB,
  proxy,
  serveForBadInput,
  UNKNOWN,
  until,
} from "./bad-input.ts";

serveForBadInput({ arePaired: true });

const events = (relay: RelayClient) => relay.frames.filter(({ type }) => type === "event");

describe("a relay socket", () => {
  test.each<[string, string | Uint8Array<ArrayBuffer>]>([
    ["no JSON", "hello"],
    ["no object", "[]"],
    ["an unknown type", '{"v":1,"type":"nonsense","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z"}'],
    [
      "a type of the server's",
      '{"v":1,"type":"deliver","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z"}',
    ],
    ["another version", '{"v":2,"type":"heartbeat","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z"}'],
    ["an id that is no ULID", '{"v":1,"type":"heartbeat","id":"1","ts":"2026-01-01T00:00:00Z"}'],
    [
      "an enqueue without a payload",
      `{"v":1,"type":"enqueue","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z","toAgentDid":"${UNKNOWN}"}`,
    ],
    [
      "an enqueue with two payloads",
      `{"v":1,"type":"enqueue","id":"01K00000000000000000000000","ts":"2026-01-01T00:00:00Z","toAgentDid":"${UNKNOWN}","payload":1,"payload":2}`,
    ],
    ["bytes", new Uint8Array([0x7b, 0x7d])],
  ])("is told that %s is no frame, and goes on", async (_, frame) => {
    const relay = await connectRelay(proxy.url, bob);
    relay.sendRaw(frame);
    expect(await relay.next(({ type }) => type === "event")).toMatchObject({
      event: "error",
      payload: { code: "MALFORMED_FRAME" },
      seq: 1,
    });
    relay.send({ type: "heartbeat" });
    await relay.next(({ type }) => type === "heartbeat_ack");
    relay.close();
    await relay.closed;
  });

  test("is closed with 1008 at the tenth", async () => {
    const relay = await connectRelay(proxy.url, bob);
    for (let n = 0; n < 12; n++) relay.sendText("{");
    expect(await relay.closed).toMatchObject({ code: 1008 });
    expect(events(relay)).toHaveLength(10);
  });

  test("is closed with 1009 by a frame of more than 1 MiB", async () => {
    const relay = await connectRelay(proxy.url, bob);
    relay.sendText(JSON.stringify({ type: "x".repeat(MIB) }));
    expect(await relay.closed).toMatchObject({ code: 1009 });
  });

  test("gets its heartbeat acknowledged by id", async () => {
    const relay = await connectRelay(proxy.url, bob);
    const id = ulid();
    relay.send({ type: "heartbeat", id });
    expect(await relay.next(({ type }) => type === "heartbeat_ack")).toMatchObject({ v: 1, ackId: id });
    relay.close();
    expect(await relay.closed).toMatchObject({ code: 1000 });
  });

  test.each<[string, () => string, string]>([
    ["a peer that it does not trust", () => UNKNOWN, "PROXY_AUTH_FORBIDDEN"],
    ["itself", () => alice.did, "PROXY_HOOK_RECIPIENT_INVALID"],
  ])("may not enqueue for %s", async (_, to, reason) => {
    const relay = await connectRelay(proxy.url, alice);
    const id = ulid();
    relay.send({ type: "enqueue", id, toAgentDid: to(), payload: {} });
    expect(await relay.next(({ type }) => type === "enqueue_ack")).toMatchObject({
      ackId: id,
      accepted: false,
      reason,
    });
    relay.close();
    await relay.closed;
  });

  test("may repeat a frame: the same message, not a second; another body under its id is refused", async () => {
    const relay = await connectRelay(proxy.url, alice);
    const id = ulid();
    for (const payload of [{ n: 1 }, { n: 1 }, { n: 2 }])
      relay.send({ type: "enqueue", id, toAgentDid: bob.did, payload });
    const acks = () => relay.frames.filter(({ type }) => type === "enqueue_ack");
    await until(
      async () => acks().length,
      (count) => count === 3,
    );
    const [first, second, third] = acks();
    expect(first).toMatchObject({ accepted: true });
    expect(second).toMatchObject({ accepted: true, deliveryId: first?.["deliveryId"] });
    expect(third).toMatchObject({ accepted: false, reason: "PROXY_CONFLICT" });
    relay.close();
    await relay.closed;
  });

  test("is superseded by a newer one of the agent", async () => {
    const older = await connectRelay(proxy.url, bob);
    const newer = await connectRelay(proxy.url, bob);
    expect(await older.closed).toEqual({ code: 1000, reason: "superseded" });
    newer.send({ type: "heartbeat" });
    await newer.next(({ type }) => type === "heartbeat_ack");
    newer.close();
    expect(await newer.closed).toMatchObject({ code: 1000 });
  });

  test("acknowledging what is not there hears nothing of it and goes on", async () => {
    const relay = await connectRelay(proxy.url, bob);
    relay.send({ type: "deliver_ack", ackId: ulid(), accepted: true });
    relay.send({ type: "heartbeat" });
    await relay.next(({ type }) => type === "heartbeat_ack");
    expect(events(relay)).toEqual([]);
    relay.close();
    await relay.closed;
  });

  test("is opened once by a ticket, and by nothing that only looks like one", async () => {
    const issued = await request(proxy.url, bob, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
    const ticket = issued.body["ticket"] as unknown as string;
    const relay = await openRelay(proxy.url, ticket);
    relay.close();
    await relay.closed;
    const upgrade = (protocol: string): Promise<RawAnswer> =>
      rawHttp(proxy.url, [
        head("GET", "/relay/connect", [
          ["Host", new URL(proxy.url).host],
          ["Connection", "Upgrade"],
          ["Upgrade", "websocket"],
          ["Sec-WebSocket-Version", "13"],
          ["Sec-WebSocket-Key", Buffer.alloc(16).toString("base64")],
          ["Sec-WebSocket-Protocol", protocol],
        ]),
      ]);
    for (const bad of [
      ticket,
      `${ticket.slice(0, -1)}x`,
      "x",
      `spw_${"A".repeat(43)}.${Buffer.from(UNKNOWN).toString("base64url")}`,
    ]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expectRawProblem(await upgrade(`sallyport.ticket.${bad}`), 401, "PROXY_AUTH_INVALID_TOKEN");
    }
  });
});

test("after all that nothing has failed inside, and no secret has been printed", expectNoHarm);
