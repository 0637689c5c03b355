/** Ids of groups, contract §5: `grp_` and a ULID. */
import { isUlid, newUlid } from "./ulid.ts";

/** The id of a group; only {@link parseGroupId} and {@link newGroupId} make one. */
export type GroupId = `grp_${string}` & { readonly __group: true };

/** The header by which a send names its group, contract §3. */
export const GROUP_HEADER = "X-Claw-Group-Id";

const PREFIX = "grp_";

/** @returns the id, or null when the text is none */
export function parseGroupId(text: string): GroupId | null {
  return text.startsWith(PREFIX) && isUlid(text.slice(PREFIX.length)) ? (text as GroupId) : null;
}

/** @param nowMs the time that the id carries, in milliseconds since 1970 @returns an id that no group has */
export function newGroupId(nowMs: number): GroupId {
  return `${PREFIX}${newUlid(nowMs)}` as GroupId;
}
