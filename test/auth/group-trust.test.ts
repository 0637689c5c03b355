/** Membership of a group as the trust of a send: remembered, stale and unavailable by the rules of a pair. */
import { beforeEach, describe, expect, test } from "vitest";
import { createTrustStage, readAddressee, type TrustStage } from "../../src/auth/trust.ts";
import type { Membership } from "../../src/trust/groups/rows.ts";
import type { AgentDid } from "../../src/wire/did.ts";
import { newGroupId } from "../../src/wire/group-id.ts";
import { newAgentDid } from "../trust/call-context.ts";
import { NOW_MS, recordingLog, requestScope, TRUST_SETTINGS } from "./fixture.ts";

const groupId = newGroupId(NOW_MS);

let nowMs: number;
let reads: number;
let answer: () => Promise<Membership | null>;
let stage: TrustStage;
let scope: ReturnType<typeof requestScope>;
let alice: AgentDid;
let bob: AgentDid;
let carol: AgentDid;

beforeEach(() => {
  nowMs = NOW_MS;
  reads = 0;
  scope = requestScope(() => nowMs);
  [alice, bob, carol] = [newAgentDid(), newAgentDid(), newAgentDid()];
  answer = list(1, alice, bob);
  stage = createTrustStage({
    settings: TRUST_SETTINGS,
    log: recordingLog(),
    lookUp: async () => ({ trusted: false, epoch: 0 }),
    lookUpGroup: () => {
      reads += 1;
      return answer();
    },
  });
});

const list =
  (epoch: number, ...members: AgentDid[]) =>
  async (): Promise<Membership> => ({ epoch, members: new Set(members) });
const fails = async (): Promise<never> => {
  throw new Error("D1 is down");
};
const judge = async (sender: AgentDid, recipient: AgentDid | null, how?: { fresh: boolean }): Promise<unknown> => {
  const judged = await stage.groups.judge({ sender, groupId, recipient }, scope, how);
  return judged.ok ? [judged.value.cache, judged.value.epoch, ...judged.value.recipients] : judged.error.reason;
};

describe("while the store answers", () => {
  test("one read serves everybody who sends in the group, to one and to all", async () => {
    expect(await judge(alice, bob)).toEqual(["miss", 1, bob]);
    expect(await judge(bob, alice)).toEqual(["hit", 1, alice]);
    expect(await judge(alice, null)).toEqual(["hit", 1, bob]);
    expect(reads).toBe(1);
    nowMs += 95_000;
    expect(await judge(bob, null)).toEqual(["refreshed", 1, alice]);
    expect(reads).toBe(2);
  });

  test("whoever is missing is looked for anew, so that a newcomer is in at once, as sender and as recipient", async () => {
    await judge(alice, bob);
    expect(await judge(carol, alice)).toBe("group-not-trusted");
    answer = list(2, alice, bob, carol);
    expect(await judge(carol, alice)).toEqual(["miss", 2, alice]);
    answer = list(3, alice, bob);
    stage.groups.forget(groupId);
    expect(await judge(alice, carol)).toBe("group-not-trusted");
    answer = list(4, alice, bob, carol);
    expect(await judge(alice, carol)).toEqual(["miss", 4, carol]);
  });

  test("a group that is none, or is no more, is not remembered", async () => {
    answer = async () => null;
    expect(await judge(alice, bob)).toBe("group-not-trusted");
    expect(await judge(alice, null)).toBe("group-not-trusted");
    answer = list(1, alice, bob);
    expect(await judge(alice, bob)).toEqual(["miss", 1, bob]);
    answer = async () => null;
    expect(await judge(alice, bob, { fresh: true })).toBe("group-not-trusted");
    answer = fails;
    expect(await judge(alice, bob)).toBe("trust-unavailable");
  });
});

describe("while the store fails", () => {
  test("a list that was never read is unavailable, and one that was is served to the end of its stale time", async () => {
    answer = fails;
    expect(await judge(alice, bob)).toBe("trust-unavailable");
    answer = list(1, alice, bob);
    await judge(alice, bob);
    answer = fails;
    nowMs += 400_000;
    expect(await judge(alice, bob)).toEqual(["stale", 1, bob]);
    expect(await judge(alice, null)).toEqual(["stale", 1, bob]);
    nowMs += 500_000;
    expect(await judge(alice, bob)).toBe("trust-unavailable");
  });

  test("whoever is not on the remembered list is neither let in nor told no for good", async () => {
    await judge(alice, bob);
    answer = fails;
    expect(await judge(carol, alice)).toBe("trust-unavailable");
  });

  test("groups and pairs share one breaker", async () => {
    answer = fails;
    for (let round = 0; round < 20; round += 1) await judge(alice, bob);
    expect(reads).toBe(5);
    expect(stage.breaker().state).toBe("open");
    const pair = await stage.judge(alice, bob, scope);
    expect(pair.ok ? null : pair.error.reason).toBe("trust-unavailable");
  });
});

describe("the headers of a send", () => {
  const read = (headers: Record<string, string>): unknown => {
    const addressee = readAddressee(new Headers(headers), alice);
    return addressee.ok ? addressee.value : addressee.error.reason;
  };

  test("name a recipient, one in a group, or all of a group", () => {
    const to = { "X-Claw-Recipient-Agent-Did": bob };
    const inGroup = { "X-Claw-Group-Id": groupId };
    expect(read(to)).toEqual({ kind: "pair", recipientDid: bob });
    expect(read({ ...to, ...inGroup })).toEqual({ kind: "member", groupId, recipientDid: bob });
    expect(read(inGroup)).toEqual({ kind: "group", groupId });
    expect(read({})).toBe("recipient-missing");
  });

  test("that name no group, or no recipient though they say one, are refused", () => {
    expect(read({ "X-Claw-Group-Id": "grp_1" })).toBe("group-malformed");
    expect(read({ "X-Claw-Group-Id": "" })).toBe("group-malformed");
    expect(read({ "X-Claw-Group-Id": `${groupId}, ${groupId}` })).toBe("group-malformed");
    expect(read({ "X-Claw-Group-Id": groupId, "X-Claw-Recipient-Agent-Did": "" })).toBe("recipient-missing");
    expect(read({ "X-Claw-Group-Id": groupId, "X-Claw-Recipient-Agent-Did": alice })).toBe("recipient-is-sender");
  });
});
