/** What became of a call. */
import { writeJson } from "../wire/json-text.ts";
import type { ProblemCode } from "../wire/problem.ts";

/** A call that was refused or has failed; plain data. */
export type RefusedReply = {
  ok: false;
  code: ProblemCode;
  message: string;
  /** No such method: JSON-RPC has a code of its own for it. */
  unknownMethod?: true;
  retryAfterMs?: number;
  data?: Readonly<Record<string, unknown>>;
};

/** What became of a call, where it ran. A result may hold `JsonText`, which is no plain data. */
export type Reply = { ok: true; result: unknown } | RefusedReply;

/** The same, written down: plain data that crosses from a gate to the Worker and goes out as it is. */
export type WrittenReply = { ok: true; resultText: string } | RefusedReply;

/** @returns the reply with its result as JSON text */
export function writtenReply(reply: Reply): WrittenReply {
  return reply.ok ? { ok: true, resultText: writeJson(reply.result) } : reply;
}
