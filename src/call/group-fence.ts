/** What the gates of a group are notified of when its members change. */
import type { AgentDid } from "../wire/did.ts";
import type { GroupId } from "../wire/group-id.ts";

/**
 * What a gate is notified of a group: that somebody is out of it below an epoch (`subject` is a member, or empty for all of it), or
 * that somebody came at that epoch (`+`).
 */
export type GroupFence = { readonly groupId: GroupId; readonly subject: AgentDid | "" | "+"; readonly epoch: number };
