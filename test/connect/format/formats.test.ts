/** What a program gets, byte by byte. */
import { describe, expect, test } from "vitest";
import type { Formatted } from "../../../src/connect/format/format.ts";
import { FORMATS } from "../../../src/connect/format/formats.ts";
import { ALICE, BOB, delivery } from "../deliveries.ts";

/** A payload whose text would not outlive being parsed and written. */
const ODD = '{"n":12345678901234567890, "n":1e400,"s":"\\u00e9"}';
const full = delivery({
  deliveryId: "01KBC00000000000000000000A",
  fromName: "Ålice",
  conversationId: "thread ä",
  groupId: "grp_01KBC00000000000000000000A",
  contentType: "application/json",
  replyTo: "https://gate.example.com/receipts",
  payloadText: ODD,
});
const written = (name: keyof typeof FORMATS, message = full): Formatted => {
  const formatted = FORMATS[name](message);
  if (typeof formatted === "string") throw new Error(formatted);
  return formatted;
};

test("sallyport: the relay's names, and the payload's own text", () => {
  const { body } = written("sallyport");
  expect(body.endsWith(`,"payload":${ODD}}`)).toBe(true);
  expect(JSON.parse(body)).toMatchObject({
    deliveryId: full.deliveryId,
    fromAgentDid: ALICE,
    fromName: "Ålice",
    toAgentDid: BOB,
    conversationId: "thread ä",
    receivedAt: "2026-12-01T10:00:00.000Z",
  });
});

describe("clawdentity", () => {
  test("has the members that its connector posts, and no others", () => {
    const { body } = written("clawdentity");
    expect(body).toContain(`"payload":${ODD}`);
    expect(JSON.parse(body.replace(ODD, "null"))).toEqual({
      type: "clawdentity.delivery.v1",
      requestId: full.deliveryId,
      fromAgentDid: ALICE,
      toAgentDid: BOB,
      payload: null,
      conversationId: "thread ä",
      groupId: full.groupId,
      senderAgentName: "Ålice",
      relayMetadata: {
        timestamp: "2026-12-01T10:00:00.000Z",
        contentType: "application/json",
        replyTo: "https://gate.example.com/receipts",
      },
    });
  });

  test("a message of no agent comes from the recipient itself, and says who it was", () => {
    const message = delivery({ fromAgentDid: null, fromSubject: "service_account:01K" });
    expect(JSON.parse(written("clawdentity", message).body)).toMatchObject({
      fromAgentDid: BOB,
      relayMetadata: { deliverySource: "service_account:01K" },
    });
  });
});

describe("openclaw", () => {
  test.each([
    { payloadText: '{"text":"hello"}', message: "hello" },
    { payloadText: '{"message":"hi"}', message: "hi" },
    { payloadText: '"plain"', message: "plain" },
    { payloadText: '{"n":1e400}', message: '{"n":1e400}' },
    { payloadText: "[1,2]", message: "[1,2]" },
    { payloadText: "null", message: "null" },
  ])("the text of $payloadText is $message", ({ payloadText, message }) => {
    const { body } = written("openclaw", delivery({ payloadText, deliveryId: "D", conversationId: "c" }));
    expect(JSON.parse(body)).toEqual({ message, name: ALICE, sessionKey: "sallyport:c", idempotencyKey: "D" });
  });

  test("what is longer than its hook takes is refused, in words for the sender", () => {
    expect(FORMATS.openclaw(delivery({ payloadText: JSON.stringify("x".repeat(300_000)) }))).toContain("256 KiB");
  });
});

test("raw: the payload to the byte, and headers that any client can send", () => {
  const { headers, body } = written("raw");
  expect(body).toBe(ODD);
  expect(headers).toEqual({
    "Content-Type": "application/json",
    "Sallyport-From-Agent-Did": ALICE,
    "Sallyport-From-Name": "UTF-8''%C3%85lice",
    "Sallyport-To-Agent-Did": BOB,
    "Sallyport-Conversation-Id": "UTF-8''thread%20%C3%A4",
    "Sallyport-Group-Id": full.groupId,
    "Sallyport-Reply-To": "https://gate.example.com/receipts",
  });
});

test("cloudevents: binary mode, with text percent-encoded as the HTTP binding has it", () => {
  const { headers, body } = written("cloudevents");
  expect(body).toBe(ODD);
  expect(headers).toEqual({
    "Content-Type": "application/json",
    "ce-specversion": "1.0",
    "ce-type": "sallyport.message.v1",
    "ce-id": full.deliveryId,
    "ce-source": ALICE,
    "ce-subject": BOB,
    "ce-time": "2026-12-01T10:00:00.000Z",
    "ce-conversationid": "thread%20%C3%A4",
    "ce-groupid": full.groupId,
  });
});

test("every form gives headers that can be sent, whatever a peer writes", () => {
  const hostile = delivery({
    fromName: 'a"%\u{1F600}',
    conversationId: 'x\u00e9%"y',
    replyTo: "https://x.example/%22",
  });
  for (const name of Object.keys(FORMATS) as (keyof typeof FORMATS)[]) {
    const { headers } = written(name, hostile);
    for (const value of Object.values(headers)) expect(value).toMatch(/^[\x20-\x7e]*$/);
    expect(() => new Headers(headers)).not.toThrow();
  }
});
