/**
 * Groups of agents (contract §5): whoever is in one may send to the others in it, paired or not.
 *
 * @example
 * ```ts
 * const { groupId } = await agent.groups.create("research");
 * const { token } = await agent.groups.invite({ groupId });
 * await other.groups.join(token);
 * const { deliveries } = await agent.sendToGroup({ groupId, payload: { text: "hello, all" } });
 * await other.groups.leave(groupId);
 * console.log(deliveries.length, (await agent.groups.get(groupId)).members.length); // 1 1
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer } from "../transport/http-call.ts";
import type { CallMethod } from "./rpc.ts";

const role = z.enum(["member", "admin"]);
const member = z.object({ agentDid: z.string(), role, since: z.number() });
const named = z.object({ groupId: z.string(), name: z.string() });
const invited = z.object({ token: z.string(), expiresAtMs: z.number() });
const joined = z.object({ groupId: z.string(), name: z.string(), members: z.array(member) });
const shown = z.object({ groupId: z.string(), name: z.string(), role, members: z.array(member) });
const listed = z.object({
  groups: z.array(z.object({ groupId: z.string(), name: z.string(), role, since: z.number(), members: z.number() })),
});
const removed = z.object({ removed: z.boolean() });
const left = z.object({ left: z.literal(true) });
const deleted = z.object({ deleted: z.literal(true) });

/** Admins invite, remove, rename and delete. */
export type GroupRole = z.infer<typeof role>;
/** One of a group; `since` in milliseconds since 1970. */
export type GroupMember = z.infer<typeof member>;
/** A group with all its members; `role` is the caller's. */
export type Group = z.infer<typeof shown>;
/** A group in a list; `members` counts them, `since` is when the caller came. */
export type ListedGroup = z.infer<typeof listed>["groups"][number];
/** A join token, shown this once; it lets one agent in. */
export type GroupInvite = z.infer<typeof invited>;

/** The groups of one agent. */
export type Groups = {
  /** Makes a group with the caller as admin. @param name 1 to 64 characters, none of them invisible */
  create(name: string): Promise<{ groupId: string; name: string }>;
  /** Makes a join token. @param invite.ttlSeconds 60 to 604,800; a day by default */
  invite(invite: {
    readonly groupId: string;
    readonly role?: GroupRole | undefined;
    readonly ttlSeconds?: number | undefined;
  }): Promise<GroupInvite>;
  /** Uses a token. @throws RpcError `PROXY_NOT_FOUND` for one that is not, or no longer, to be used */
  join(token: string): Promise<z.infer<typeof joined>>;
  list(): Promise<readonly ListedGroup[]>;
  /** @throws RpcError `PROXY_NOT_FOUND` for a group that the caller is not in */
  get(groupId: string): Promise<Group>;
  /** Removes a member, who is out when this resolves; resolves to whether that agent was in the group. */
  remove(groupId: string, agentDid: string): Promise<boolean>;
  /** Leaves: the caller is out when this resolves. @throws RpcError `PROXY_CONFLICT` for the last admin */
  leave(groupId: string): Promise<void>;
  rename(groupId: string, name: string): Promise<void>;
  /** Deletes it: everybody is out when this resolves. */
  delete(groupId: string): Promise<void>;
};

/** @param call how the agent, or its device with `admin`, calls methods */
export function createGroups(call: CallMethod): Groups {
  return {
    create: async (name) => parseAnswer(named, await call("group/create", { name })),
    invite: async (invite) => parseAnswer(invited, await call("group/invite", { ...invite })),
    join: async (token) => parseAnswer(joined, await call("group/join", { token })),
    list: async () => parseAnswer(listed, await call("group/list")).groups,
    get: async (groupId) => parseAnswer(shown, await call("group/get", { groupId })),
    remove: async (groupId, agentDid) =>
      parseAnswer(removed, await call("group/remove", { groupId, agentDid })).removed,
    async leave(groupId) {
      parseAnswer(left, await call("group/leave", { groupId }));
    },
    async rename(groupId, name) {
      parseAnswer(named, await call("group/rename", { groupId, name }));
    },
    async delete(groupId) {
      parseAnswer(deleted, await call("group/delete", { groupId }));
    },
  };
}
