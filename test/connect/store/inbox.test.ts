/** The inbox on disk. */
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { type InboxStore, openInboxStore } from "../../../src/connect/store/inbox.ts";
import { temporaryFolder } from "../../cli/program.ts";
import { ALICE, delivery } from "../deliveries.ts";

const NONE: ReadonlySet<string> = new Set();
const AT_MS = delivery().receivedAtMs;

async function store(limits?: { messages: number; bytes: number }): Promise<{ inbox: InboxStore; path: string }> {
  const path = join(await temporaryFolder(), "inbox.sqlite");
  const inbox = openInboxStore(path, limits);
  onTestFinished(() => inbox.close());
  return { inbox, path };
}

const dueIds = (inbox: InboxStore, nowMs = AT_MS): string[] =>
  inbox.due(nowMs, NONE).map(({ message }) => message.deliveryId);

test("a message keeps its own text, and is there for another process at once", async () => {
  const { inbox, path } = await store();
  const message = delivery({ payloadText: '{"n":1e400, "n":-0}', conversationId: "c" });
  expect(inbox.put(message)).toBe("kept");
  const other = openInboxStore(path);
  onTestFinished(() => other.close());
  expect(other.get(message.deliveryId)?.message).toEqual(message);
  expect(other.due(AT_MS, NONE)).toEqual([{ message, attempts: 0 }]);
});

test("the first of each sender is due, and one that waits for its retry holds back its own sender alone", async () => {
  const { inbox } = await store();
  const [a1, a2, b1] = [delivery(), delivery(), delivery({ fromAgentDid: `${ALICE.slice(0, -1)}Z` })];
  for (const message of [a1, a2, b1]) inbox.put(message);
  expect(dueIds(inbox)).toEqual([a1.deliveryId, b1.deliveryId]);
  inbox.postponed(a1.deliveryId, "answered 503", AT_MS + 1_000, AT_MS);
  expect(dueIds(inbox)).toEqual([b1.deliveryId]);
  expect(inbox.nextDueMs(new Set([b1.fromAgentDid ?? ""]))).toBe(AT_MS + 1_000);
  expect(dueIds(inbox, AT_MS + 1_000)).toEqual([a1.deliveryId, b1.deliveryId]);
  inbox.handled(a1.deliveryId, AT_MS);
  inbox.failed(b1.deliveryId, "no", AT_MS);
  expect(dueIds(inbox)).toEqual([a2.deliveryId]);
});

test("what comes again is known, whatever has become of it", async () => {
  const { inbox } = await store();
  const message = delivery();
  inbox.put(message);
  expect(inbox.put(message)).toBe("known");
  inbox.handled(message.deliveryId, AT_MS);
  expect(inbox.put(message)).toBe("known");
  expect(dueIds(inbox)).toEqual([]);
});

describe("a bound", () => {
  test("in messages, counted exactly through ends and retries", async () => {
    const { inbox } = await store({ messages: 2, bytes: 1_000 });
    const [one, two, three] = [delivery(), delivery(), delivery()];
    expect([one, two, three].map(inbox.put)).toEqual(["kept", "kept", "full"]);
    inbox.failed(one.deliveryId, "no", AT_MS);
    expect(inbox.usage()).toMatchObject({ messages: 1, bytes: 10 });
    expect(inbox.put(three)).toBe("kept");
    expect(inbox.retry(one.deliveryId, AT_MS)).toBe(true);
    expect(inbox.usage()).toMatchObject({ messages: 3, bytes: 30 });
  });

  test("in bytes of UTF-8", async () => {
    const { inbox } = await store({ messages: 10, bytes: 9 });
    expect(inbox.put(delivery({ payloadText: '"ääää"' }))).toBe("full");
    expect(inbox.put(delivery({ payloadText: '"äää"' }))).toBe("kept");
  });
});

test("each end is reported once, in the order of the messages", async () => {
  const { inbox } = await store();
  const [one, two] = [delivery(), delivery()];
  for (const message of [one, two]) inbox.put(message);
  inbox.failed(two.deliveryId, "no", AT_MS);
  inbox.handled(one.deliveryId, AT_MS);
  expect(inbox.unreported(10)).toEqual([
    { deliveryId: one.deliveryId, fromAgentDid: ALICE, state: "handled", reason: null },
    { deliveryId: two.deliveryId, fromAgentDid: ALICE, state: "failed", reason: "no" },
  ]);
  inbox.reported([one.deliveryId, two.deliveryId]);
  expect(inbox.unreported(10)).toEqual([]);
});

test("what is over and reported is forgotten after a day, and nothing before", async () => {
  const { inbox } = await store();
  const [old, unreported, waiting] = [delivery(), delivery(), delivery()];
  for (const message of [old, unreported, waiting]) inbox.put(message);
  inbox.handled(old.deliveryId, AT_MS);
  inbox.handled(unreported.deliveryId, AT_MS);
  inbox.reported([old.deliveryId]);
  inbox.prune(AT_MS + 86_400_000);
  expect(inbox.list(null, 10)).toHaveLength(3);
  inbox.prune(AT_MS + 86_400_001);
  expect(inbox.list(null, 10).map(({ deliveryId }) => deliveryId)).toEqual([waiting.deliveryId, unreported.deliveryId]);
});

test("a dropped message fails, and cannot be dropped or tried once it is handled", async () => {
  const { inbox } = await store();
  const [one, two] = [delivery(), delivery()];
  for (const message of [one, two]) inbox.put(message);
  expect(inbox.drop(one.deliveryId, AT_MS)).toBe(true);
  expect(inbox.get(one.deliveryId)?.entry).toMatchObject({ state: "failed", reason: "dropped by the recipient" });
  inbox.handled(two.deliveryId, AT_MS);
  expect([inbox.drop(two.deliveryId, AT_MS), inbox.retry(two.deliveryId, AT_MS), inbox.retry("none", AT_MS)]).toEqual([
    false,
    false,
    false,
  ]);
});
