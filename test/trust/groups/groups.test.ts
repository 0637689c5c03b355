/** Groups as their members and strangers see them: over the whole program, real routes, gates and D1. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { newGroupId } from "../../../src/wire/group-id.ts";
import { readsOf } from "../../support/db-spy.ts";
import {
  type Agent,
  apiKeyOf,
  type Caller,
  codeOf,
  fetchWorker,
  newKey,
  operator,
  pairDevice,
  register,
  result,
  rows,
  rpc,
  rpcResponse,
} from "../../support/world.ts";

type Shown = { groupId: string; name: string; members: { agentDid: string; role: string; since: number }[] };

let alice: Agent;
let bob: Agent;
let carol: Agent;
let mallory: Agent;

beforeAll(async () => {
  [alice, bob, carol, mallory] = [await register(), await register(), await register(), await register()];
});

async function groupOf(admin: Agent, ...members: Agent[]): Promise<string> {
  const { groupId } = (await result(admin, "group/create", { name: "team" })) as Shown;
  for (const member of members) {
    // oxlint-disable-next-line no-await-in-loop -- in this order
    await result(member, "group/join", { token: await tokenFor(admin, groupId) });
  }
  return groupId;
}

async function tokenFor(admin: Caller, groupId: string, more: Record<string, unknown> = {}): Promise<string> {
  return (await result(admin, "group/invite", { groupId, ...more }))["token"] as string;
}

const membersOf = async (me: Caller, groupId: string): Promise<[string, string][]> =>
  ((await result(me, "group/get", { groupId })) as Shown).members.map(({ agentDid, role }) => [agentDid, role]);

const fencesPending = (groupId: string): Promise<unknown[]> =>
  rows("SELECT subject, epoch FROM group_fences WHERE group_id = ?1", groupId);

describe("a group", () => {
  test("is made with its maker as admin, and shown to whoever joins by a token", async () => {
    const made = (await result(alice, "group/create", { name: "research 🚀" })) as Shown;
    expect(made).toEqual({ groupId: expect.stringMatching(/^grp_[0-9A-HJKMNP-TV-Z]{26}$/), name: "research 🚀" });
    const invited = await result(alice, "group/invite", { groupId: made.groupId });
    expect(invited).toEqual({
      token: expect.stringMatching(/^spg_[A-Za-z0-9_-]{43}$/),
      expiresAtMs: expect.any(Number),
    });
    expect(Number(invited["expiresAtMs"]) - Date.now()).toBeGreaterThan(86_400_000 - 60_000);
    const joined = await result(bob, "group/join", { token: invited["token"] });
    const members = [
      { agentDid: alice.did, role: "admin", since: expect.any(Number) },
      { agentDid: bob.did, role: "member", since: expect.any(Number) },
    ];
    expect(joined).toEqual({ groupId: made.groupId, name: "research 🚀", members });
    expect(await result(bob, "group/get", { groupId: made.groupId })).toEqual({
      groupId: made.groupId,
      name: "research 🚀",
      role: "member",
      members,
    });
    expect((await result(bob, "group/list", {}))["groups"]).toContainEqual({
      groupId: made.groupId,
      name: "research 🚀",
      role: "member",
      since: expect.any(Number),
      members: 2,
    });
  });

  test("is renamed, and its members removed, by an admin alone", async () => {
    const groupId = await groupOf(alice, bob, carol);
    for (const [method, more] of [
      ["group/invite", {}],
      ["group/rename", { name: "ours" }],
      ["group/remove", { agentDid: carol.did }],
      ["group/remove", { agentDid: bob.did }],
      ["group/delete", {}],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await codeOf(bob, method, { groupId, ...more })).toBe("PROXY_AUTH_FORBIDDEN");
    }
    expect(await result(alice, "group/rename", { groupId, name: "ours" })).toEqual({ groupId, name: "ours" });
    expect(await result(alice, "group/remove", { groupId, agentDid: carol.did })).toEqual({ removed: true });
    expect(await result(alice, "group/remove", { groupId, agentDid: carol.did })).toEqual({ removed: false });
    expect(await membersOf(bob, groupId)).toEqual([
      [alice.did, "admin"],
      [bob.did, "member"],
    ]);
    expect(await codeOf(carol, "group/get", { groupId })).toBe("PROXY_NOT_FOUND");
  });

  test("is not left by its last admin, but by one who made another, and by everybody else", async () => {
    const groupId = await groupOf(alice, bob);
    expect(await codeOf(alice, "group/leave", { groupId })).toBe("PROXY_CONFLICT");
    expect(await codeOf(alice, "group/remove", { groupId, agentDid: alice.did })).toBe("PROXY_CONFLICT");
    await result(carol, "group/join", { token: await tokenFor(alice, groupId, { role: "admin" }) });
    expect(await result(alice, "group/leave", { groupId })).toEqual({ left: true });
    expect(await codeOf(alice, "group/leave", { groupId })).toBe("PROXY_NOT_FOUND");
    expect(await result(bob, "group/leave", { groupId })).toEqual({ left: true });
    expect(await membersOf(carol, groupId)).toEqual([[carol.did, "admin"]]);
    expect(await fencesPending(groupId)).toEqual([]);
  });

  test("of two admins who leave at once keeps one", async () => {
    const groupId = await groupOf(alice);
    await result(bob, "group/join", { token: await tokenFor(alice, groupId, { role: "admin" }) });
    const answers = await Promise.all([rpc(alice, "group/leave", { groupId }), rpc(bob, "group/leave", { groupId })]);
    expect(answers.filter(({ result: left }) => left !== undefined)).toHaveLength(1);
    expect(answers.find(({ error }) => error !== undefined)?.error?.data?.["code"]).toBe("PROXY_CONFLICT");
  });

  test("that was deleted is nobody's any more, and leaves no row", async () => {
    const groupId = await groupOf(alice, bob);
    const token = await tokenFor(alice, groupId);
    expect(await result(alice, "group/delete", { groupId })).toEqual({ deleted: true });
    for (const caller of [alice, bob]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await codeOf(caller, "group/get", { groupId })).toBe("PROXY_NOT_FOUND");
    }
    expect(await codeOf(alice, "group/delete", { groupId })).toBe("PROXY_NOT_FOUND");
    expect(await codeOf(carol, "group/join", { token })).toBe("PROXY_NOT_FOUND");
    for (const table of ["agent_groups", "group_members", "group_tokens", "group_fences"]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await rows(`SELECT 1 FROM ${table} WHERE group_id = ?1`, groupId)).toEqual([]);
    }
  });

  test("holds 100 members, and an agent is in 100 groups", async () => {
    const groupId = await groupOf(alice);
    const full = Array.from({ length: 99 }, (_, n) => `did:cdi:nobody.example:agent:01K${String(n).padStart(23, "0")}`);
    await env.DB.batch(
      full.map((did) => env.DB.prepare("INSERT INTO group_members VALUES (?1, ?2, 'member', 1)").bind(groupId, did)),
    );
    const token = await tokenFor(alice, groupId);
    const refused = await rpc(bob, "group/join", { token });
    expect(refused.error?.data).toMatchObject({ code: "PROXY_QUOTA_EXCEEDED" });
    await env.DB.prepare("DELETE FROM group_members WHERE group_id = ?1 AND agent_did = ?2")
      .bind(groupId, full[0])
      .run();

    const busy = await register();
    await env.DB.batch(
      Array.from({ length: 100 }, () => newGroupId(Date.now())).flatMap((id) => [
        env.DB.prepare("INSERT INTO agent_groups VALUES (?1, 'g', 1, ?2, 1, NULL)").bind(id, busy.did),
        env.DB.prepare("INSERT INTO group_members VALUES (?1, ?2, 'admin', 1)").bind(id, busy.did),
      ]),
    );
    expect(await codeOf(busy, "group/create", { name: "one more" })).toBe("PROXY_QUOTA_EXCEEDED");
    expect(await codeOf(busy, "group/join", { token })).toBe("PROXY_QUOTA_EXCEEDED");
    // Neither refusal has used the token.
    expect(await result(bob, "group/join", { token })).toMatchObject({ groupId });
  });

  test.each(["", " ", "a".repeat(65), "a\u202eb", "a\u0007b", "\ud800", "x\u200by"])(
    "is not named %j",
    async (name) => {
      const made = await rpc(alice, "group/create", { name });
      expect(made.error?.code).toBe(-32602);
    },
  );

  test("has each change in the audit by who made it, and never a token", async () => {
    const groupId = await groupOf(alice, bob);
    await result(alice, "group/rename", { groupId, name: "other" });
    await result(bob, "group/leave", { groupId });
    await result(bob, "group/join", { token: await tokenFor(alice, groupId) });
    await result(alice, "group/remove", { groupId, agentDid: bob.did });
    await result(alice, "group/delete", { groupId });
    const entries = await rows<{ action: string; actor: string; details: string }>(
      "SELECT action, actor, details FROM audit WHERE subject = ?1 ORDER BY rowid",
      `group:${groupId}`,
    );
    expect(entries.map(({ action, actor }) => [action, actor])).toEqual([
      ["group.create", `agent:${alice.did}`],
      ["group.invite", `agent:${alice.did}`],
      ["group.join", `agent:${bob.did}`],
      ["group.rename", `agent:${alice.did}`],
      ["group.leave", `agent:${bob.did}`],
      ["group.invite", `agent:${alice.did}`],
      ["group.join", `agent:${bob.did}`],
      ["group.remove", `agent:${alice.did}`],
      ["group.delete", `agent:${alice.did}`],
    ]);
    expect(JSON.stringify(entries)).not.toContain("spg_");
  });

  test("loses an agent that is revoked, and is no more where that was alone", async () => {
    const short = await register();
    const shared = await groupOf(alice, short);
    const own = await groupOf(short);
    const answer = await fetchWorker(
      new Request("https://proxy.example/v1/agents/revoke", {
        method: "POST",
        body: JSON.stringify({ agentDid: short.did }),
        headers: { Authorization: `Bearer ${env.OPERATOR_TOKEN ?? ""}`, "Content-Type": "application/json" },
      }),
    );
    expect(answer.status).toBeLessThan(300);
    expect(await membersOf(alice, shared)).toEqual([[alice.did, "admin"]]);
    expect(await rows("SELECT 1 FROM agent_groups WHERE group_id = ?1", own)).toEqual([]);
  });
});

describe("a join token", () => {
  test("works once, whoever is quickest", async () => {
    const groupId = await groupOf(alice);
    const token = await tokenFor(alice, groupId);
    const callers = [bob, carol, mallory];
    const answers = await Promise.all([...callers, ...callers].map((each) => rpc(each, "group/join", { token })));
    expect(answers.filter(({ result: joined }) => joined !== undefined)).toHaveLength(1);
    expect(await rows("SELECT 1 FROM group_members WHERE group_id = ?1", groupId)).toHaveLength(2);
  });

  test("is refused in one and the same way where it is unknown, used, expired, of a deleted group, or no token", async () => {
    const groupId = await groupOf(alice);
    const deleted = await groupOf(alice);
    const used = await tokenFor(alice, groupId);
    await result(bob, "group/join", { token: used });
    const ofDeleted = await tokenFor(alice, deleted);
    await result(alice, "group/delete", { groupId: deleted });
    const expired = await tokenFor(alice, groupId, { ttlSeconds: 60 });
    await env.DB.prepare("UPDATE group_tokens SET expires_at_ms = ?1 WHERE group_id = ?2 AND use_id IS NULL")
      .bind(Date.now(), groupId)
      .run();
    const answers = await Promise.all(
      [used, ofDeleted, expired, `spg_${"A".repeat(43)}`, "not a token", ""].map((token) =>
        rpc(carol, "group/join", { token }),
      ),
    );
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    expect(answers[0]?.error?.data?.["code"]).toBe("PROXY_NOT_FOUND");
    // And by whoever used it.
    expect(await codeOf(bob, "group/join", { token: used })).toBe("PROXY_NOT_FOUND");
  });

  test("is not used up by whoever is in the group already", async () => {
    const groupId = await groupOf(alice, bob);
    const token = await tokenFor(alice, groupId);
    expect(await codeOf(bob, "group/join", { token })).toBe("PROXY_CONFLICT");
    expect(await result(carol, "group/join", { token })).toMatchObject({ groupId });
  });

  test("for an admin makes a member one, which is no second place in the group", async () => {
    const groupId = await groupOf(alice, bob);
    const token = await tokenFor(alice, groupId, { role: "admin" });
    expect(await codeOf(alice, "group/join", { token })).toBe("PROXY_CONFLICT");
    expect(await result(bob, "group/join", { token })).toMatchObject({ groupId });
    expect(await membersOf(bob, groupId)).toEqual([
      [alice.did, "admin"],
      [bob.did, "admin"],
    ]);
    expect(await result(alice, "group/leave", { groupId })).toEqual({ left: true });
    expect(await codeOf(carol, "group/join", { token })).toBe("PROXY_NOT_FOUND");
  });

  test("ends with its maker's place in the group, also where the maker comes back", async () => {
    const groupId = await groupOf(alice);
    await result(bob, "group/join", { token: await tokenFor(alice, groupId, { role: "admin" }) });
    const token = await tokenFor(bob, groupId);
    await result(alice, "group/remove", { groupId, agentDid: bob.did });
    expect(await codeOf(carol, "group/join", { token })).toBe("PROXY_NOT_FOUND");
    await result(bob, "group/join", { token: await tokenFor(alice, groupId, { role: "admin" }) });
    expect(await codeOf(carol, "group/join", { token })).toBe("PROXY_NOT_FOUND");
  });

  test("that a device made ends with the device", async () => {
    const groupId = await groupOf(alice);
    const [kept, ended] = [await pairDevice(alice, ["admin"]), await pairDevice(alice, ["admin"])];
    const [good, bad] = [await tokenFor(kept, groupId), await tokenFor(ended, groupId)];
    await result(alice, "device.token.revoke", { deviceId: ended.deviceId });
    expect(await codeOf(bob, "group/join", { token: bad })).toBe("PROXY_NOT_FOUND");
    expect(await result(bob, "group/join", { token: good })).toMatchObject({ groupId });
  });

  test("ends with a re-key of the agent that made it", async () => {
    const admin = await register();
    const groupId = await groupOf(admin, alice);
    const token = await tokenFor(admin, groupId);
    const { x } = await newKey();
    const answer = await fetchWorker(
      new Request("https://proxy.example/v1/agents/rekey", {
        method: "POST",
        body: JSON.stringify({ agentDid: admin.did, publicKey: x }),
        headers: { Authorization: `Bearer ${env.OPERATOR_TOKEN ?? ""}`, "Content-Type": "application/json" },
      }),
    );
    expect(answer.status).toBeLessThan(300);
    expect(await codeOf(bob, "group/join", { token })).toBe("PROXY_NOT_FOUND");
    // The place stays: it is the agent's, whatever its key.
    expect(await membersOf(alice, groupId)).toEqual([
      [admin.did, "admin"],
      [alice.did, "member"],
    ]);
  });

  test("is stored as a hash alone, and a group has 100 of them waiting at most", async () => {
    const groupId = await groupOf(alice);
    const token = await tokenFor(alice, groupId);
    const [stored] = await rows("SELECT * FROM group_tokens WHERE group_id = ?1", groupId);
    expect(JSON.stringify(stored)).not.toContain(token.slice(4));
    await env.DB.batch(
      Array.from({ length: 99 }, (_, n) =>
        env.DB.prepare("INSERT INTO group_tokens VALUES (?1, ?2, 'member', 'x', '[]', 1, ?3, NULL, NULL)").bind(
          `${groupId}${n}`,
          groupId,
          Date.now() + 60_000,
        ),
      ),
    );
    expect(await codeOf(alice, "group/invite", { groupId })).toBe("PROXY_QUOTA_EXCEEDED");
  });

  test.each([59, 604_801, 1.5, "60"])("is not made for %j seconds", async (ttlSeconds) => {
    const groupId = await groupOf(alice);
    expect((await rpc(alice, "group/invite", { groupId, ttlSeconds })).error?.code).toBe(-32602);
  });
});

describe("to somebody outside a group does not exist", () => {
  const CALLS = 30;
  const METHODS: [string, () => Record<string, unknown>][] = [
    ["group/get", () => ({})],
    ["group/invite", () => ({})],
    ["group/rename", () => ({ name: "mine" })],
    ["group/remove", () => ({ agentDid: bob.did })],
    ["group/leave", () => ({})],
    ["group/delete", () => ({})],
  ];

  const bytesOf = async (caller: Caller, method: string, params: unknown): Promise<string> => {
    const response = await rpcResponse(caller, method, params);
    const headers = [...response.headers].filter(([name]) => name !== "x-request-id" && name !== "date");
    return JSON.stringify([response.status, headers, await response.text()]);
  };

  test.each(METHODS)("%s: thirty calls are byte for byte those on a group that is none", async (method, more) => {
    vi.spyOn(console, "log").mockReturnValue();
    vi.spyOn(console, "warn").mockReturnValue();
    onTestFinished(() => void vi.restoreAllMocks());
    const groupId = await groupOf(alice, bob);
    const [missing, malformed] = [newGroupId(Date.now()), "not an id"];
    for (let call = 0; call < CALLS / 3; call += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const answers = await Promise.all(
        [groupId, missing, malformed].map((id) => bytesOf(mallory, method, { groupId: id, ...more() })),
      );
      expect(answers[0]).toContain("PROXY_NOT_FOUND");
      expect(new Set(answers).size).toBe(1);
    }
    expect(await membersOf(bob, groupId)).toHaveLength(2);
    const reads = (id: string): Promise<number> => readsOf(mallory, method, { groupId: id, ...more() });
    expect(await reads(groupId)).toBe(await reads(missing));
  });

  test("and neither a key, an operator nor a device without admin acts in one", async () => {
    const groupId = await groupOf(alice);
    const key = await apiKeyOf(alice, ["admin"]);
    const device = await pairDevice(alice, ["relay", "send", "devices"]);
    for (const caller of [key, operator, device]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await codeOf(caller, "group/get", { groupId })).toBe("PROXY_AUTH_FORBIDDEN");
    }
    const admin = await pairDevice(alice, ["admin"]);
    expect(await membersOf(admin, groupId)).toEqual([[alice.did, "admin"]]);
  });
});
