/** What of a group's changes is pending in the database, and how it gets into gates that were out of reach. */
import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import type { GroupFence } from "../../../src/call/group-fence.ts";
import type { RoundLimits } from "../../../src/resilience/round.ts";
import {
  GATES_PER_FENCE_MAX,
  GROUP_FENCES_GRACE_MS,
  type GroupGates,
  retryPendingGroupFences,
} from "../../../src/trust/groups/fences.ts";
import { createGroup, deleteGroup } from "../../../src/trust/groups/groups.ts";
import { inviteToGroup, joinGroup, leaveGroup, removeMember } from "../../../src/trust/groups/membership.ts";
import { lookUpMembership } from "../../../src/trust/groups/rows.ts";
import type { CallContext } from "../../../src/call/context.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import type { GroupId } from "../../../src/wire/group-id.ts";
import { callBy, type CallHarness, newAgentDid, newCallHarness } from "../call-context.ts";

const LIMITS: RoundLimits = { calls: 4 * GATES_PER_FENCE_MAX, parallel: 8, durationMs: 60_000, callTimeoutMs: 1_000 };

let harness: CallHarness;
let placed: (GroupFence & { at: AgentDid })[];
let broken: Set<AgentDid>;
let alice: AgentDid;
let bob: AgentDid;
let carol: AgentDid;
let groupId: GroupId;

const gates: GroupGates = {
  of: (at) => ({
    async fenceGroup(fence) {
      if (broken.has(at)) throw new Error("the gate is out of reach");
      placed.push({ at, ...fence });
    },
  }),
};

/** A call in the caller's own gate, which takes fences as the others do. */
function by(did: AgentDid): CallContext {
  const gate = {
    fenceGroup: (fence: GroupFence) => void placed.push({ at: did, ...fence }),
    apiKeys: { generation: () => 0 },
  };
  return { ...callBy(harness, did), gates, gate } as unknown as CallContext;
}

const retry = (): Promise<unknown> =>
  retryPendingGroupFences({ db: env.DB, now: () => harness.nowMs, log: harness.log, gates }, LIMITS);
const pending = async (): Promise<unknown[]> =>
  (await env.DB.prepare("SELECT subject, epoch, attempts FROM group_fences WHERE group_id = ?1").bind(groupId).all())
    .results;
const at = (): AgentDid[] => placed.map((fence) => fence.at).toSorted();

beforeEach(async () => {
  await env.DB.prepare("DELETE FROM group_fences").run();
  harness = newCallHarness();
  placed = [];
  broken = new Set();
  [alice, bob, carol] = [newAgentDid(), newAgentDid(), newAgentDid()];
  ({ groupId } = await createGroup(by(alice), alice, "team"));
  for (const member of [bob, carol]) {
    // oxlint-disable-next-line no-await-in-loop -- in this order
    const { token } = await inviteToGroup(by(alice), alice, { groupId, role: "member", ttlSeconds: 60 });
    // oxlint-disable-next-line no-await-in-loop
    await joinGroup(by(member), member, token);
  }
  placed = [];
});

describe("a member that goes", () => {
  test.each([
    ["by itself", () => leaveGroup(by(carol), carol, groupId)],
    ["by an admin", () => removeMember(by(alice), alice, groupId, carol)],
  ])(
    "%s is fenced in its own gate and in those of all others, above every epoch it was judged by",
    async (_how, go) => {
      const before = (await lookUpMembership(env.DB, groupId))?.epoch ?? 0;
      await go();
      expect(at()).toEqual([alice, bob, carol].toSorted());
      for (const fence of placed) expect(fence).toMatchObject({ groupId, subject: carol, epoch: before + 1 });
      expect(await lookUpMembership(env.DB, groupId)).toEqual({ epoch: before + 1, members: new Set([alice, bob]) });
      expect(await pending()).toEqual([]);
    },
  );

  test("is no success while a gate is out of reach, and the repeat places what is missing", async () => {
    broken.add(bob);
    await expect(removeMember(by(alice), alice, groupId, carol)).rejects.toMatchObject({
      code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
    });
    expect(await pending()).toHaveLength(1);
    await expect(removeMember(by(alice), alice, groupId, carol)).rejects.toMatchObject({ status: 503 });
    broken.clear();
    placed = [];
    expect(await removeMember(by(alice), alice, groupId, carol)).toEqual({ removed: false });
    expect(at()).toEqual([alice, bob, carol].toSorted());
    expect(await pending()).toEqual([]);
  });

  test("may repeat its own leaving until it stands", async () => {
    broken.add(alice);
    await expect(leaveGroup(by(carol), carol, groupId)).rejects.toMatchObject({ status: 503 });
    broken.clear();
    expect(await leaveGroup(by(carol), carol, groupId)).toEqual({ left: true });
    await expect(leaveGroup(by(carol), carol, groupId)).rejects.toMatchObject({ code: "PROXY_NOT_FOUND" });
  });

  test("is fenced by housekeeping where the call died, after a grace and then ever later", async () => {
    broken.add(bob);
    await expect(leaveGroup(by(carol), carol, groupId)).rejects.toMatchObject({ status: 503 });
    placed = [];
    expect(await retry()).toMatchObject({ done: 0, failed: 0 });
    harness.nowMs += GROUP_FENCES_GRACE_MS;
    expect(await retry()).toMatchObject({ failed: 1 });
    expect(await pending()).toMatchObject([{ subject: carol, attempts: 1 }]);
    expect(harness.log.lines.map(({ event }) => event)).toContain("group.fence_failed");
    broken.clear();
    expect(await retry()).toMatchObject({ done: 0, failed: 0 });
    harness.nowMs += 3_600_000;
    placed = [];
    expect(await retry()).toMatchObject({ done: 1 });
    expect(at()).toEqual([alice, bob, carol].toSorted());
    expect(await pending()).toEqual([]);
  });
});

describe("a group that is deleted", () => {
  test("is fenced as a whole in the gates of all, of those too whose own fences are pending", async () => {
    broken.add(bob);
    await expect(leaveGroup(by(carol), carol, groupId)).rejects.toMatchObject({ status: 503 });
    await expect(deleteGroup(by(alice), alice, groupId)).rejects.toMatchObject({ status: 503 });
    expect(await lookUpMembership(env.DB, groupId)).toBeNull();
    broken.clear();
    placed = [];
    expect(await deleteGroup(by(alice), alice, groupId)).toEqual({ deleted: true });
    expect(at()).toEqual([alice, bob, carol].toSorted());
    expect(new Set(placed.map(({ subject }) => subject))).toEqual(new Set([""]));
    expect(await pending()).toEqual([]);
    await expect(deleteGroup(by(bob), bob, groupId)).rejects.toMatchObject({ code: "PROXY_NOT_FOUND" });
  });

  test("says nothing of itself to a member who is no admin, also while its fences are pending", async () => {
    broken.add(bob);
    await expect(deleteGroup(by(alice), alice, groupId)).rejects.toMatchObject({ status: 503 });
    await expect(deleteGroup(by(bob), bob, groupId)).rejects.toMatchObject({ code: "PROXY_NOT_FOUND" });
  });
});

describe("one who joins", () => {
  test("is announced to the gates of all members, and is in though one is out of reach", async () => {
    const dave = newAgentDid();
    broken.add(bob);
    const { token } = await inviteToGroup(by(alice), alice, { groupId, role: "member", ttlSeconds: 60 });
    expect((await joinGroup(by(dave), dave, token)).members).toHaveLength(4);
    const epoch = (await lookUpMembership(env.DB, groupId))?.epoch;
    expect(await pending()).toEqual([{ subject: "+", epoch, attempts: 0 }]);
    broken.clear();
    placed = [];
    harness.nowMs += GROUP_FENCES_GRACE_MS;
    expect(await retry()).toMatchObject({ done: 1 });
    expect(at()).toEqual([alice, bob, carol, dave].toSorted());
  });
});
