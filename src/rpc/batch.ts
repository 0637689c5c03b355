/** The calls of one request in their order, and how much their answers may come to: all of them are held at once. */
import { type Reply, type WrittenReply, writtenReply } from "../call/reply.ts";
import { ProxyError } from "../wire/problem.ts";
import { refusal } from "./dispatcher.ts";

/**
 * Once the answers of a batch are so many characters of JSON, what follows is not run. With the largest single answer on top
 * they still cross from a gate in one piece, which may have 32 MiB.
 */
export const BATCH_ANSWERS_MAX = 8 * 1_048_576;

/**
 * Runs calls one after the other.
 *
 * @returns an answer for each, written down; OVERLOADED, with nothing done, for those that the answers before leave no room for
 */
export async function runInOrder<C>(calls: readonly C[], run: (call: C) => Promise<Reply>): Promise<WrittenReply[]> {
  const replies: WrittenReply[] = [];
  let held = 0;
  for (const call of calls) {
    if (held >= BATCH_ANSWERS_MAX) {
      replies.push(noRoom());
      continue;
    }
    // oxlint-disable-next-line no-await-in-loop -- a batch runs in its order
    const reply = writtenReply(await run(call));
    replies.push(reply);
    if (reply.ok) held += reply.resultText.length;
  }
  return replies;
}

function noRoom(): WrittenReply {
  const detail = "The answers before this one fill the batch, and the call was not made; make it again in another.";
  return refusal(new ProxyError("OVERLOADED", { detail }));
}
