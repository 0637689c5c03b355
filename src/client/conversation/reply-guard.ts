/** Keeps two programs from answering each other for ever: counts the replies in each conversation. */
import { ReplyLimitError } from "../transport/errors.ts";

/** How many replies one conversation gets. */
export type ReplyLimit = {
  /** Within {@link ReplyLimit.windowMs}; 32 by default. */
  readonly max: number;
  /** Ten minutes by default. */
  readonly windowMs: number;
};

/** What holds where nothing else is said. */
export const REPLY_LIMIT: ReplyLimit = { max: 32, windowMs: 600_000 };

/** Conversations that are counted; beyond it the one that has been quiet longest is forgotten. */
const CONVERSATIONS_MAX = 10_000;

/** Counts replies. */
export type ReplyGuard = {
  /** @param conversationId null for messages outside any. @throws ReplyLimitError where the conversation has had its replies */
  count(peerDid: string, conversationId: string | null): void;
};

/** @param nowMs the time in milliseconds */
export function createReplyGuard(limit: ReplyLimit, nowMs: () => number): ReplyGuard {
  const conversations = new Map<string, number[]>();
  return {
    count(peerDid, conversationId) {
      const key = `${peerDid} ${conversationId ?? ""}`;
      const fromMs = nowMs() - limit.windowMs;
      const recent = (conversations.get(key) ?? []).filter((atMs) => atMs > fromMs);
      if (recent.length >= limit.max) throw new ReplyLimitError(limit, peerDid, conversationId);
      recent.push(nowMs());
      conversations.delete(key);
      conversations.set(key, recent);
      const [quietest] = conversations.keys();
      if (conversations.size > CONVERSATIONS_MAX && quietest !== undefined) conversations.delete(quietest);
    },
  };
}
