/** The outbox on disk. */
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type OutboxStore, openOutboxStore } from "../../../src/connect/store/outbox.ts";
import { temporaryFolder } from "../../cli/program.ts";
import { ALICE, BOB } from "../deliveries.ts";

const NONE: ReadonlySet<string> = new Set();

async function store(limits?: { messages: number; bytes: number }): Promise<OutboxStore> {
  const outbox = openOutboxStore(join(await temporaryFolder(), "outbox.sqlite"), limits);
  onTestFinished(() => outbox.close());
  return outbox;
}

test("a key is one message: the same again is known, another under it is refused", async () => {
  const outbox = await store();
  const message = { key: "k", to: BOB, payloadText: '{"n":1.0}' };
  expect(outbox.put(message, 0)).toBe("kept");
  expect(outbox.put(message, 0)).toBe("known");
  expect(outbox.put({ ...message, payloadText: '{"n":1}' }, 0)).toBe("other");
  expect(outbox.put({ ...message, to: ALICE }, 0)).toBe("other");
  outbox.sent("k", "D", 1);
  expect(outbox.put(message, 0)).toBe("known");
  expect(outbox.get("k")).toEqual({ state: "sent", deliveryId: "D" });
});

test("the order to one recipient is kept, and others go on", async () => {
  const outbox = await store();
  for (const [key, to] of [
    ["1", BOB],
    ["2", BOB],
    ["3", ALICE],
  ] as const)
    outbox.put({ key, to, payloadText: "1" }, 0);
  const keys = (nowMs: number) => outbox.due(nowMs, NONE).map(({ message }) => message.key);
  expect(keys(0)).toEqual(["1", "3"]);
  outbox.postponed("1", "no network", 500, 0);
  expect(keys(499)).toEqual(["3"]);
  expect(outbox.nextDueMs(new Set([ALICE]))).toBe(500);
  outbox.failed("1", "PROXY_AUTH_FORBIDDEN", 500);
  expect(keys(500)).toEqual(["2", "3"]);
});

test("it is full in messages, and what is over makes room", async () => {
  const outbox = await store({ messages: 1, bytes: 100 });
  expect(outbox.put({ key: "1", to: BOB, payloadText: "1" }, 0)).toBe("kept");
  expect(outbox.put({ key: "2", to: BOB, payloadText: "2" }, 0)).toBe("full");
  outbox.sent("1", "D", 0);
  expect(outbox.put({ key: "2", to: BOB, payloadText: "2" }, 0)).toBe("kept");
});
