import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import { type AgentDid, parseAgentDid } from "../../src/wire/did.ts";
import * as build from "../../src/wire/frame-encoder.ts";
import {
  isReplyTo,
  MAX_CLIENT_FRAME_BYTES,
  MAX_SERVER_FRAME_BYTES,
  parseClientFrame,
  parseServerFrame,
} from "../../src/wire/frames.ts";
import vectors from "../vectors/frames.json";

const did = (last: string): AgentDid => {
  const parsed = parseAgentDid(`did:cdi:registry.example.com:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0${last}`);
  if (parsed === null) throw new Error("no DID");
  return parsed;
};
const head = build.frameHead(1_795_348_800_000);
const ackId = "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0G";
const enqueueOf = (payloadText: string): string => build.enqueueFrame(head, { toAgentDid: did("J"), payloadText });
const frameOf = (letters: string): string => enqueueOf(JSON.stringify(letters));

describe("a frame from a client", () => {
  test.each(vectors.client)("is $what", ({ text }) => {
    const parsed = parseClientFrame(text);
    expect(parsed).toMatchObject({ ok: true, value: { type: (JSON.parse(text) as { type: string }).type } });
  });

  test.each(vectors.refused)("is refused: $what", ({ text, reason }) => {
    expect(parseClientFrame(text)).toMatchObject({ ok: false, error: { reason } });
  });

  test("that is refused is named by its id, so that the client knows which one", () => {
    const parsed = parseClientFrame(JSON.stringify({ v: 1, type: "enqueue", id: ackId, ts: head.ts }));
    expect(parsed).toMatchObject({ ok: false, error: { frameId: ackId } });
  });

  test("may have 1 MiB and not a byte more, counted in UTF-8", () => {
    const room = MAX_CLIENT_FRAME_BYTES - frameOf("").length;
    expect(parseClientFrame(frameOf("a".repeat(room))).ok).toBe(true);
    expect(parseClientFrame(frameOf("a".repeat(room + 1)))).toMatchObject({
      ok: false,
      error: { reason: "too_large" },
    });
    const twoBytes = "é".repeat(Math.floor(room / 2));
    expect(parseClientFrame(frameOf(twoBytes)).ok).toBe(true);
    expect(parseClientFrame(frameOf(`${twoBytes}é`))).toMatchObject({ ok: false, error: { reason: "too_large" } });
  });

  test("keeps at most 512 characters of a reason", () => {
    const parsed = parseClientFrame(
      build.deliverAckFrame(head, { ackId, accepted: false, reason: "x".repeat(10_000) }),
    );
    expect(parsed.ok && "reason" in parsed.value && parsed.value.reason?.length).toBe(512);
  });

  property.prop([fc.json()])("hands on its payload's own text, not a re-serialization", (payloadText) => {
    expect(parseClientFrame(enqueueOf(payloadText))).toMatchObject({ ok: true, value: { payloadText } });
  });

  const frameLike = fc.record(
    {
      v: fc.oneof(fc.constant(1), fc.jsonValue()),
      type: fc.oneof(fc.constantFrom("deliver_ack", "enqueue", "heartbeat", "heartbeat_ack", "req"), fc.jsonValue()),
      id: fc.oneof(fc.constant(head.id), fc.jsonValue()),
      ts: fc.oneof(fc.constant(head.ts), fc.jsonValue()),
      ackId: fc.oneof(fc.constant(ackId), fc.jsonValue()),
      toAgentDid: fc.oneof(fc.constant(did("J")), fc.jsonValue()),
      accepted: fc.jsonValue(),
      method: fc.jsonValue(),
      payload: fc.jsonValue(),
      replyTo: fc.jsonValue(),
    },
    { requiredKeys: [] },
  );

  property.prop([frameLike], { numRuns: 500 })(
    "that only looks like one is read or refused with a reason, and never throws",
    (value) => {
      const parsed = parseClientFrame(JSON.stringify(value));
      if (parsed.ok) expect(parsed.value.type).toBe(value.type);
      else expect(parsed.error.detail).not.toBe("");
    },
  );

  property.prop([fc.string({ maxLength: 300 })])("of any text is read or refused, and never throws", (text) => {
    expect(parseClientFrame(text).ok).toBe(false);
  });
});

describe("a frame from the server", () => {
  test.each(vectors.server)("is $what", ({ text }) => {
    const parsed = parseServerFrame(text);
    expect(parsed).toMatchObject({ ok: true, value: { type: (JSON.parse(text) as { type: string }).type } });
  });

  test.each([" 1.0e2 ", '{"b":1,"a":[ 1 ]}', '"\\u00e9"', "12345678901234567890", '\n{"a":\t1}\r\n'])(
    "delivers %j as it came from its sender",
    (payloadText) => {
      const text = build.deliverFrame(head, {
        deliveryId: "d_1",
        fromAgentDid: did("B"),
        toAgentDid: did("J"),
        payloadText,
      });
      expect(text).toContain(`"payload":${payloadText}}`);
      expect(parseServerFrame(text)).toMatchObject({
        ok: true,
        value: { payloadText: payloadText.trim(), payload: JSON.parse(payloadText) as unknown, deliveryId: "d_1" },
      });
    },
  );

  test("has room for the largest body and everything around it", () => {
    const payloadText = JSON.stringify("a".repeat(1_048_576 - 2));
    const text = build.deliverFrame(head, {
      deliveryId: "d".repeat(512),
      fromAgentDid: did("B"),
      toAgentDid: did("J"),
      payloadText,
      contentType: "application/json; charset=utf-8",
      conversationId: "世".repeat(256),
      groupId: '"'.repeat(256),
      replyTo: `https://example.com/${"a".repeat(2_000)}`,
    });
    expect(new TextEncoder().encode(text).length).toBeLessThan(MAX_SERVER_FRAME_BYTES);
    expect(parseServerFrame(text).ok).toBe(true);
  });

  test.each([
    ["enqueue_ack", build.enqueueAckFrame(head, { ackId, accepted: true, deliveryId: "d_1", reason: undefined })],
    ["heartbeat", build.heartbeatFrame(head)],
    ["heartbeat_ack", build.heartbeatAckFrame(head, ackId)],
    [
      "receipt",
      build.receiptFrame(head, {
        originalFrameId: null,
        deliveryId: "d",
        toAgentDid: did("J"),
        status: "delivered",
      }),
    ],
    ["res", build.resFrame({ idText: "7", ok: false, error: { code: "PROXY_NOT_FOUND", message: "no" } })],
    ["event", build.eventFrame({ event: "error", payload: null, seq: 1 })],
  ])("is read back as the %s it was built as", (type, text) => {
    expect(parseServerFrame(text)).toMatchObject({ ok: true, value: { type } });
  });
});

test.each([
  ["https://example.com/x?y=1", true],
  ["http://example.com", false],
  ["https://user:secret@example.com", false],
  ["https://exa mple.com", false],
  ["javascript:alert(1)", false],
  [`https://example.com/${"a".repeat(2_048)}`, false],
])("%s as a reply address: %s", (text, fine) => {
  expect(isReplyTo(text)).toBe(fine);
});
