/** Relay frames and JSON-RPC bodies, and the member that is passed on as its own text. */
import * as fc from "fast-check";
import { MAX_CLIENT_FRAME_BYTES, parseClientFrame, parseServerFrame } from "../../../src/wire/frames.ts";
import { rawMember } from "../../../src/wire/json-text.ts";
import { parseRpcBody, RPC_BATCH_MAX } from "../../../src/wire/rpc.ts";
import { agentDid, anyJson, anyText, isSafeName, looseJson, mutated, spoiled, ulid } from "../arbitraries.ts";
import { must, target } from "../target.ts";

const head = { v: fc.constant(1), id: ulid, ts: fc.constant("2026-11-22T12:00:00.000Z") };
const option = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const frames: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  fc.record({
    ...head,
    type: fc.constant("deliver_ack"),
    ackId: ulid,
    accepted: fc.boolean(),
    reason: option(anyText),
  }),
  fc.record({
    ...head,
    type: fc.constant("enqueue"),
    toAgentDid: agentDid,
    payload: anyJson,
    conversationId: option(anyText),
    groupId: option(anyText),
    replyTo: option(fc.oneof(fc.webUrl(), anyText)),
  }),
  fc.record({ ...head, type: fc.constantFrom("heartbeat", "heartbeat_ack"), ackId: option(ulid) }),
  fc.record({
    type: fc.constant("req"),
    id: fc.oneof(anyText, fc.integer()),
    method: fc.oneof(fc.constant("task/list"), anyText),
    params: option(anyJson),
  }),
  fc.record({
    ...head,
    type: fc.constantFrom("deliver", "enqueue_ack", "receipt", "res", "event", "toString", "__proto__"),
  }),
);
const call = fc.record({
  jsonrpc: fc.constant("2.0"),
  id: option(fc.oneof(fc.integer(), anyText, fc.constant(null))),
  method: fc.oneof(fc.constant("task/list"), anyText),
  params: option(anyJson),
});

/** `JSON.parse` as it is, or null. */
function parsed(text: string): { value: unknown } | null {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other);

export const frameTargets = [
  target<string>({
    name: "frames",
    weight: 6,
    acceptedAtLeast: 0.1,
    arbitrary: fc.oneof(
      { weight: 4, arbitrary: looseJson(spoiled(frames)) },
      { weight: 1, arbitrary: mutated(frames.map((frame) => JSON.stringify(frame))) },
      { weight: 1, arbitrary: anyText },
    ),
    holds(text) {
      const frame = parseClientFrame(text);
      parseServerFrame(text);
      if (!frame.ok) return false;
      const json = parsed(text)?.value as Record<string, unknown> | undefined;
      must(json !== undefined && text.length <= MAX_CLIENT_FRAME_BYTES, "a frame is JSON within its size");
      must(
        ["deliver_ack", "enqueue", "heartbeat", "heartbeat_ack", "req"].includes(frame.value.type) &&
          frame.value.type === json["type"],
        "its type is one that a client sends",
      );
      must(same(frame.value.id, json["id"]), "its id is the one that was sent");
      if (frame.value.type !== "req") must(json["v"] === 1, "its version is 1");
      if (frame.value.type === "enqueue") {
        must(
          same(parsed(frame.value.payloadText)?.value, json["payload"]),
          "the payload's own text says what the payload says",
        );
        must(
          (frame.value.toAgentDid?.startsWith("did:cdi:") ?? frame.value.groupId !== undefined) &&
            (frame.value.replyTo === undefined || new URL(frame.value.replyTo).protocol === "https:"),
          "it names an agent or a group, and an https URL",
        );
      }
      if (frame.value.type === "deliver_ack")
        must(
          frame.value.accepted === json["accepted"] && (frame.value.reason?.length ?? 0) <= 512,
          "the verdict is the one that was sent",
        );
      must(
        !("polluted" in {}) && Object.getPrototypeOf(frame.value) === Object.prototype,
        "nothing of the frame becomes a prototype",
      );
      return true;
    },
  }),
  target<{ text: string; name: string }>({
    name: "members as their own text",
    weight: 3,
    acceptedAtLeast: 0.04,
    arbitrary: fc
      .tuple(
        looseJson(
          fc.dictionary(fc.oneof(anyText, fc.constantFrom("payload", "a", '"')).filter(isSafeName), anyJson, {
            maxKeys: 5,
          }),
        ),
        fc.oneof(fc.constantFrom("payload", "a", "\\", '"', ""), anyText),
      )
      .map(([text, name]) => ({ text, name })),
    holds({ text, name }) {
      const json = parsed(text)?.value;
      if (typeof json !== "object" || json === null) return false;
      const found = rawMember(text, name);
      if (!found.ok) return false;
      must((found.value !== null) === Object.hasOwn(json, name), "a member is found exactly where there is one");
      if (found.value !== null)
        must(same(parsed(found.value)?.value, (json as Record<string, unknown>)[name]), "its text says what it says");
      return found.value !== null;
    },
  }),
  target<string>({
    name: "JSON-RPC bodies",
    weight: 3,
    acceptedAtLeast: 0.2,
    arbitrary: fc.oneof(
      {
        weight: 4,
        arbitrary: spoiled(call as fc.Arbitrary<Record<string, unknown>>).map((value) => JSON.stringify(value)),
      },
      {
        weight: 3,
        arbitrary: fc
          .array(fc.oneof(spoiled(call as fc.Arbitrary<Record<string, unknown>>), anyJson), { maxLength: 55 })
          .map((value) => JSON.stringify(value)),
      },
      { weight: 1, arbitrary: mutated(call.map((value) => JSON.stringify(value))) },
      { weight: 1, arbitrary: anyText },
    ),
    holds(text) {
      const body = parseRpcBody(text);
      const json = parsed(text);
      if (!body.ok) {
        const answer = JSON.parse(body.error) as { jsonrpc: unknown; id: unknown };
        must(answer.jsonrpc === "2.0" && answer.id === null, "what cannot be read is answered without an id");
        must(
          json === null ||
            (Array.isArray(json.value) && (json.value.length === 0 || json.value.length > RPC_BATCH_MAX)),
          "only what is no JSON, an empty batch or one too long is refused whole",
        );
        return false;
      }
      const sent = Array.isArray(json?.value) ? json.value : [json?.value];
      must(
        body.value.calls.length === sent.length && body.value.calls.length <= RPC_BATCH_MAX,
        "every call is answered for",
      );
      for (const [index, one] of body.value.calls.entries()) {
        const original = sent[index] as { id?: unknown; jsonrpc?: unknown; method?: unknown };
        if (one.kind === "invalid") continue;
        must(
          original.jsonrpc === "2.0" && typeof original.method === "string" && one.method === original.method,
          "a call says that it is one",
        );
        if (one.kind === "call")
          must(
            same(JSON.parse(one.idText), original.id) &&
              (original.id === null || ["string", "number"].includes(typeof original.id)),
            "its id is echoed",
          );
        else must(!Object.hasOwn(original, "id"), "what has no id is a notification");
      }
      return body.value.calls.some(({ kind }) => kind !== "invalid");
    },
  }),
];
