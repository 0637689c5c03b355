/** Each checker is fed a history that breaks its promise, and one beside it that does not. */
import { describe, expect, test } from "vitest";
import { check, type PromiseName, tally } from "./checker.ts";
import type { HistoryEvent } from "./history.ts";

type Kind<K extends HistoryEvent["kind"]> = Extract<HistoryEvent, { kind: K }>;

const send = (
  key: string,
  begunAtMs: number,
  atMs: number,
  outcome: number | "unknown" = 202,
  authority?: string,
): Kind<"send"> => ({
  kind: "send",
  begunAtMs,
  atMs,
  key,
  sender: "s",
  recipient: "r",
  outcome,
  deliveryId: outcome === 202 ? `d-${key}` : null,
  wasKnown: false,
  ...(authority === undefined ? {} : { authority }),
});
const deliver = (key: string, atMs: number, deliveryId = `d-${key}`): Kind<"deliver"> => ({
  kind: "deliver",
  atMs,
  key,
  sender: "s",
  recipient: "r",
  deliveryId,
  isRefused: false,
});
const refuse = (key: string, atMs: number): Kind<"deliver"> => ({ ...deliver(key, atMs), isRefused: true });
const left = (authority: string, moment: "ended" | "last", count: number): Kind<"effects"> => ({
  kind: "effects",
  atMs: 1,
  authority,
  moment,
  count,
});
const ended = (key: string): Kind<"ended"> => ({
  kind: "ended",
  atMs: 9,
  deliveryId: `d-${key}`,
  state: "dead_lettered",
  by: "asked",
});
const invalidated = (authority: string, atMs: number): Kind<"invalidated"> => ({
  kind: "invalidated",
  begunAtMs: atMs - 1,
  atMs,
  authority,
});
const used = (authority: string, begunAtMs: number, accepted: boolean): Kind<"used"> => ({
  kind: "used",
  begunAtMs,
  atMs: begunAtMs + 1,
  authority,
  via: "http",
  accepted,
  boot: 1,
});
const stored = (tasks: string[], owned: string[], tupled: string[]): Kind<"stored"> => ({
  kind: "stored",
  atMs: 9,
  tasks,
  owned,
  tupled,
});

const verdict = (outcome: number): Kind<"verdict"> => ({
  kind: "verdict",
  atMs: 1,
  deliveryId: "d",
  sender: "s",
  status: "handled",
  outcome,
});
const judged = (state: string, by: "receipt" | "asked" | "early"): Kind<"judged"> => ({
  kind: "judged",
  atMs: 2,
  deliveryId: "d",
  state,
  by,
});
const invite = (usesLeft: number, came: string[], registered = came): Kind<"invite"> => ({
  kind: "invite",
  atMs: 2,
  inviteId: "i",
  uses: 2,
  usesLeft,
  came,
  registered,
});
const enrolled = (agentDid: string | null): Kind<"enrolled"> => ({
  kind: "enrolled",
  atMs: 1,
  inviteId: "i",
  agentDid,
  outcome: agentDid === null ? "unknown" : 201,
});

const broken = (events: HistoryEvent[]): Partial<Record<PromiseName, number>> =>
  Object.fromEntries(Object.entries(tally(check(events))).filter(([, count]) => count > 0));

const cases: { what: string; events: HistoryEvent[]; finds: Partial<Record<PromiseName, number>> }[] = [
  { what: "a message that came", events: [send("a", 0, 1), deliver("a", 2)], finds: {} },
  {
    what: "a message that was refused and is dead",
    events: [send("a", 0, 1), refuse("a", 2), ended("a")],
    finds: {},
  },
  { what: "a message that died of nothing", events: [send("a", 0, 1), ended("a")], finds: { givenUp: 1 } },
  {
    what: "a message that died with the pairing of its sender",
    events: [send("a", 0, 1, 202, "x"), { kind: "cancelling", atMs: 2, authority: "x" }, ended("a")],
    finds: {},
  },
  {
    what: "a message that died with the token of its sender",
    events: [send("a", 0, 1, 202, "x"), invalidated("x", 2), ended("a")],
    finds: { givenUp: 1 },
  },
  { what: "a message that nobody answered for", events: [send("a", 0, 1, "unknown")], finds: {} },
  {
    what: "a message answered 202 and never heard of again",
    events: [send("a", 0, 1), send("b", 2, 3), deliver("b", 4)],
    finds: { lost: 1 },
  },
  {
    what: "a message that waits when the run is over",
    events: [send("a", 0, 1), { kind: "waiting", atMs: 2, deliveryId: "d-a" }],
    finds: { waiting: 1 },
  },
  {
    what: "a message that was said to wait, and came after all",
    events: [send("a", 0, 1), { kind: "waiting", atMs: 2, deliveryId: "d-a" }, deliver("a", 3)],
    finds: {},
  },
  {
    what: "a message that was known, and came",
    events: [send("a", 0, 1, "unknown"), { ...send("a", 2, 3, 401), wasKnown: true }, deliver("a", 4)],
    finds: {},
  },
  {
    what: "a message that was known, and never came",
    events: [send("a", 0, 1, "unknown"), { ...send("a", 2, 3, 401), wasKnown: true }],
    finds: { noncesBurnt: 1 },
  },
  {
    what: "two messages in their order",
    events: [send("a", 0, 1), send("b", 2, 3), deliver("a", 4), deliver("b", 5)],
    finds: {},
  },
  {
    what: "two messages the other way round",
    events: [send("a", 0, 1), send("b", 2, 3), deliver("b", 4), deliver("a", 5)],
    finds: { outOfOrder: 1 },
  },
  {
    what: "two messages that overlapped the other way round",
    events: [send("a", 0, 3), send("b", 2, 4), deliver("b", 5), deliver("a", 6)],
    finds: {},
  },
  {
    what: "an older message that comes a second time",
    events: [send("a", 0, 1), send("b", 2, 3), deliver("a", 4), deliver("b", 5), deliver("a", 6)],
    finds: {},
  },
  {
    what: "a message under way twice, whose second answer is what the order counts from",
    events: [send("a", 0, 1, "unknown"), send("a", 5, 6), send("b", 7, 8), deliver("b", 9), deliver("a", 10)],
    finds: { outOfOrder: 1 },
  },
  {
    what: "a message that was known before the next was begun, and came behind it",
    events: [
      send("a", 0, 1, "unknown"),
      { ...send("a", 2, 3, 401), wasKnown: true },
      send("b", 4, 5),
      deliver("b", 6),
      deliver("a", 7),
    ],
    finds: { outOfOrder: 1 },
  },
  {
    what: "messages of two recipients in any order",
    events: [
      send("a", 0, 1),
      { ...send("b", 2, 3), recipient: "q" },
      { ...deliver("b", 4), recipient: "q" },
      deliver("a", 5),
    ],
    finds: {},
  },
  { what: "a replay that was refused", events: [{ kind: "replay", atMs: 1, key: "a", outcome: 401 }], finds: {} },
  {
    what: "a replay that was accepted",
    events: [{ kind: "replay", atMs: 1, key: "a", outcome: 202 }],
    finds: { replaysAccepted: 1 },
  },
  {
    what: "one signed message that came as two",
    events: [send("a", 0, 1), deliver("a", 2), deliver("a", 3, "another")],
    finds: { replaysAccepted: 1 },
  },
  {
    what: "one frame, sent twice, that is one message",
    events: [send("a", 0, 1), send("a", 0, 2), deliver("a", 3)],
    finds: {},
  },
  {
    what: "one frame, sent twice, that is two messages",
    events: [send("a", 0, 1), { ...send("a", 0, 2), deliveryId: "another" }, deliver("a", 3), deliver("a", 4)],
    finds: { lost: 1, replaysAccepted: 1 },
  },
  {
    what: "a message that a connector acknowledged and has",
    events: [{ kind: "acknowledged", atMs: 1, deliveryId: "d", isKept: true }],
    finds: {},
  },
  {
    what: "a message that a connector acknowledged and has not",
    events: [{ kind: "acknowledged", atMs: 1, deliveryId: "d", isKept: false }],
    finds: { acknowledgedUnkept: 1 },
  },
  { what: "a forgery that was refused", events: [{ kind: "forged", atMs: 1, what: "x", outcome: 401 }], finds: {} },
  {
    what: "a forgery that was accepted",
    events: [{ kind: "forged", atMs: 1, what: "x", outcome: 202 }],
    finds: { forgeriesAccepted: 1 },
  },
  { what: "a use begun before the end was answered", events: [used("x", 4, true), invalidated("x", 5)], finds: {} },
  { what: "a use after the end that was refused", events: [invalidated("x", 5), used("x", 6, false)], finds: {} },
  {
    what: "a use after the end that was accepted",
    events: [invalidated("x", 5), used("x", 6, true)],
    finds: { effectsAfterEnd: 1 },
  },
  { what: "a use of another authority", events: [invalidated("x", 5), used("y", 6, true)], finds: {} },
  {
    what: "an end that was forgotten with the restart",
    events: [invalidated("x", 5), { kind: "boot", atMs: 6, boot: 2 }, used("x", 7, true)],
    finds: { invalidationsLost: 1 },
  },
  {
    what: "a message begun after the end, never answered, that came all the same",
    events: [invalidated("x", 5), send("a", 6, 7, "unknown", "x"), deliver("a", 8)],
    finds: { effectsAfterEnd: 1 },
  },
  {
    what: "the same after a restart",
    events: [invalidated("x", 5), { kind: "boot", atMs: 6, boot: 2 }, send("a", 7, 8, 401, "x"), deliver("a", 9)],
    finds: { invalidationsLost: 1 },
  },
  {
    what: "a message under way at the end, in front of one that was begun after it",
    events: [send("a", 4, 7, "unknown", "x"), invalidated("x", 5), send("b", 6, 8), deliver("a", 9), deliver("b", 10)],
    finds: {},
  },
  {
    what: "a message under way at the end, behind one that was begun after it",
    events: [send("a", 4, 7, "unknown", "x"), invalidated("x", 5), send("b", 6, 8), deliver("b", 9), deliver("a", 10)],
    finds: { effectsAfterEnd: 1 },
  },
  {
    what: "a message of another authority behind one that was begun after the end",
    events: [send("a", 4, 7, "unknown", "y"), invalidated("x", 5), send("b", 6, 8), deliver("b", 9), deliver("a", 10)],
    finds: {},
  },
  { what: "effects that stay what they were", events: [left("x", "ended", 3), left("x", "last", 3)], finds: {} },
  {
    what: "effects that are more than when the authority ended",
    events: [left("x", "ended", 3), left("y", "ended", 9), left("x", "last", 4)],
    finds: { effectsAfterEnd: 1 },
  },
  { what: "tasks and tuples together", events: [stored(["t"], ["t"], ["t"])], finds: {} },
  { what: "a task without tuples", events: [stored(["t"], [], [])], finds: { tasksAndTuplesApart: 1 } },
  { what: "a task whose tuples name no owner", events: [stored(["t"], [], ["t"])], finds: { tasksAndTuplesApart: 1 } },
  { what: "tuples without a task", events: [stored([], [], ["t"])], finds: { tasksAndTuplesApart: 1 } },
  {
    what: "a task that was made and is gone",
    events: [{ kind: "task", atMs: 1, op: "create", taskId: "t" }, stored([], [], [])],
    finds: { tasksLost: 1 },
  },
  {
    what: "a task that was made and deleted",
    events: [
      { kind: "task", atMs: 1, op: "create", taskId: "t" },
      { kind: "task", atMs: 2, op: "delete", taskId: "t" },
      stored([], [], []),
    ],
    finds: {},
  },
  {
    what: "a task whose deletion was not answered",
    events: [
      { kind: "task", atMs: 1, op: "create", taskId: "t" },
      { kind: "task", atMs: 2, op: "delete-unanswered", taskId: "t" },
      stored([], [], []),
    ],
    finds: {},
  },
  {
    what: "a task that was deleted and is there",
    events: [{ kind: "task", atMs: 2, op: "delete", taskId: "t" }, stored(["t"], ["t"], ["t"])],
    finds: { tasksLost: 1 },
  },
  {
    what: "a message to all of a group of which one came and one did not",
    events: [{ kind: "fanned", atMs: 2, keys: ["a", "b"] }, deliver("a", 3)],
    finds: { fannedOutInPart: 1 },
  },
  {
    what: "a message to all of a group that came to all, and one that nobody has",
    events: [
      { kind: "fanned", atMs: 2, keys: ["a", "b"] },
      { kind: "fanned", atMs: 2, keys: ["c", "d"] },
      deliver("a", 3),
      deliver("b", 4),
    ],
    finds: {},
  },
  {
    what: "a message of a removed member that comes long after the answer, and one that was on its way",
    events: [
      send("a", 1, 2, 202, "stay 1"),
      send("b", 3, 4, 202, "stay 1"),
      deliver("a", 5),
      invalidated("stay 1", 5),
      deliver("b", 9_000),
    ],
    finds: { deliveredAfterRemoval: 1 },
  },
  {
    what: "a message of a removed member over a socket that was opened after the answer",
    events: [send("a", 1, 2, 202, "stay 1"), invalidated("stay 1", 5), { ...deliver("a", 9), openedAtMs: 6 }],
    finds: { deliveredAfterRemoval: 1 },
  },
  {
    what: "a verdict that the sender was told of",
    events: [verdict(202), judged("handled", "receipt"), judged("handled", "asked")],
    finds: {},
  },
  {
    what: "a verdict that the sender had asked for, so that no receipt is due",
    events: [verdict(202), judged("handled", "early"), judged("handled", "asked")],
    finds: {},
  },
  { what: "a verdict that was refused", events: [verdict(404)], finds: { verdictsLost: 1 } },
  {
    what: "a verdict without a receipt",
    events: [verdict(202), judged("handled", "asked")],
    finds: { verdictsLost: 1 },
  },
  {
    what: "a verdict that was changed",
    events: [verdict(202), judged("handled", "receipt"), judged("failed", "asked")],
    finds: { verdictsLost: 1 },
  },
  { what: "an invite used once and unanswered", events: [enrolled(null), invite(1, ["a"])], finds: {} },
  { what: "a use without an agent", events: [invite(1, [])], finds: { invitesApart: 1 } },
  { what: "a use whose agent is not there", events: [invite(1, ["a"], [])], finds: { invitesApart: 1 } },
  {
    what: "an invite for two used by three",
    events: [invite(-1, ["a", "b", "c"])],
    finds: { invitesApart: 1 },
  },
  {
    what: "a newcomer that was answered and did not come",
    events: [enrolled("b"), invite(1, ["a"])],
    finds: { invitesApart: 1 },
  },
  {
    what: "an answer with status 500",
    events: [{ kind: "fault", atMs: 1, what: "hook", status: 500, detail: "" }],
    finds: { internalErrors: 1 },
  },
  {
    what: "a request that nobody answered",
    events: [{ kind: "hang", atMs: 1, what: "hook", tookMs: 20_000 }],
    finds: { hangs: 1 },
  },
  {
    what: "a connection that ended by itself",
    events: [{ kind: "cut", atMs: 1, what: "hook", detail: "" }],
    finds: { hangs: 1 },
  },
  {
    what: "a well-behaved sender that was refused",
    events: [{ kind: "refused", atMs: 1, key: "a", outcome: 429 }],
    finds: { neighboursRefused: 1 },
  },
  {
    what: "an end that took too long",
    events: [{ kind: "slow", atMs: 1, what: "the device", tookMs: 6_000, limitMs: 5_000, detail: "" }],
    finds: { neighboursSlowed: 1 },
  },
];

describe("the checker", () => {
  test.each(cases)("counts for $what: $finds", ({ events, finds }) => {
    expect(broken(events)).toEqual(finds);
  });

  test("has a case that breaks each promise", () => {
    const covered = new Set(cases.flatMap(({ finds }) => Object.keys(finds)));
    expect([...covered].toSorted()).toEqual(Object.keys(tally([])).toSorted());
  });
});
