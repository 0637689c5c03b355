/** The methods of groups, contract §5: an agent's own, or its device's with `admin`. What may be done in a group its row says. */
import * as z from "zod/mini";
import type { CallContext } from "../../call/context.ts";
import {
  createGroup,
  deleteGroup,
  getGroup,
  GROUP_NAME_MAX,
  listGroups,
  renameGroup,
} from "../../trust/groups/groups.ts";
import {
  GROUP_TOKEN_TTL_SECONDS,
  inviteToGroup,
  joinGroup,
  leaveGroup,
  removeMember,
} from "../../trust/groups/membership.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, count, plainText, timeMs } from "../schemas.ts";

const ID_LENGTH_MAX = 64;
const TOKEN_LENGTH_MAX = 256;

/** Whatever names no group is answered like one that does not exist. */
const groupId = z.string().check(z.maxLength(ID_LENGTH_MAX));
const name = plainText(1, GROUP_NAME_MAX);
const role = z.enum(["member", "admin"]);
const members = z.array(z.object({ agentDid, role, since: timeMs }));

/** The calling agent; a device stands for its own. */
function callingAgent({ principal }: CallContext): AgentDid {
  if (principal.kind !== "agent" && principal.kind !== "device") {
    throw new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "not-an-agent" });
  }
  return principal.agentDid;
}

export const groupMethods: readonly Method[] = [
  defineMethod({
    name: "group/create",
    surface: "rpc",
    permission: PERMISSIONS["group/create"],
    params: z.object({ name }),
    result: z.object({ groupId, name: z.string() }),
    handler: (ctx, params) => createGroup(ctx, callingAgent(ctx), params.name),
  }),
  defineMethod({
    name: "group/invite",
    surface: "rpc",
    permission: PERMISSIONS["group/invite"],
    params: z.object({
      groupId,
      role: z.optional(role),
      ttlSeconds: z.optional(
        z.int().check(z.minimum(GROUP_TOKEN_TTL_SECONDS.min), z.maximum(GROUP_TOKEN_TTL_SECONDS.max)),
      ),
    }),
    result: z.object({ token: z.string(), expiresAtMs: timeMs }),
    handler: (ctx, params) =>
      inviteToGroup(ctx, callingAgent(ctx), {
        groupId: params.groupId,
        role: params.role ?? "member",
        ttlSeconds: params.ttlSeconds ?? GROUP_TOKEN_TTL_SECONDS.default,
      }),
  }),
  defineMethod({
    name: "group/join",
    surface: "rpc",
    permission: PERMISSIONS["group/join"],
    params: z.object({ token: z.string().check(z.maxLength(TOKEN_LENGTH_MAX)) }),
    result: z.object({ groupId, name: z.string(), members }),
    handler: (ctx, params) => joinGroup(ctx, callingAgent(ctx), params.token),
  }),
  defineMethod({
    name: "group/list",
    surface: "rpc",
    permission: PERMISSIONS["group/list"],
    params: z.object({}),
    result: z.object({
      groups: z.array(z.object({ groupId, name: z.string(), role, since: timeMs, members: count })),
    }),
    handler: async (ctx) => ({ groups: await listGroups(ctx, callingAgent(ctx)) }),
  }),
  defineMethod({
    name: "group/get",
    surface: "rpc",
    permission: PERMISSIONS["group/get"],
    params: z.object({ groupId }),
    result: z.object({ groupId, name: z.string(), role, members }),
    handler: (ctx, params) => getGroup(ctx, callingAgent(ctx), params.groupId),
  }),
  defineMethod({
    name: "group/remove",
    surface: "rpc",
    permission: PERMISSIONS["group/remove"],
    params: z.object({ groupId, agentDid }),
    result: z.object({ removed: z.boolean() }),
    handler: (ctx, params) => removeMember(ctx, callingAgent(ctx), params.groupId, params.agentDid),
  }),
  defineMethod({
    name: "group/leave",
    surface: "rpc",
    permission: PERMISSIONS["group/leave"],
    params: z.object({ groupId }),
    result: z.object({ left: z.literal(true) }),
    handler: (ctx, params) => leaveGroup(ctx, callingAgent(ctx), params.groupId),
  }),
  defineMethod({
    name: "group/rename",
    surface: "rpc",
    permission: PERMISSIONS["group/rename"],
    params: z.object({ groupId, name }),
    result: z.object({ groupId, name: z.string() }),
    handler: (ctx, params) => renameGroup(ctx, callingAgent(ctx), params.groupId, params.name),
  }),
  defineMethod({
    name: "group/delete",
    surface: "rpc",
    permission: PERMISSIONS["group/delete"],
    params: z.object({ groupId }),
    result: z.object({ deleted: z.literal(true) }),
    handler: (ctx, params) => deleteGroup(ctx, callingAgent(ctx), params.groupId),
  }),
];
