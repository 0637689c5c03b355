/**
 * Operators of an installation: keys of named persons and programs, each with a role.
 *
 * @example
 * ```ts
 * const { operatorId, key } = await operator.operators.create({ name: "metrics", role: "metrics" });
 * console.log(key.startsWith("spo_")); // true
 * await operator.operators.revoke(operatorId);
 * ```
 */
import * as z from "zod/mini";
import type { OperatorRole } from "../../wire/operator-role.ts";
import { parseAnswer } from "../transport/http-call.ts";
import type { CallMethod } from "./rpc.ts";

const created = z.object({ operatorId: z.string(), key: z.string() });
const listed = z.object({
  operatorId: z.string(),
  name: z.string(),
  role: z.string(),
  createdBy: z.string(),
  createdAtMs: z.number(),
  expiresAtMs: z.nullable(z.number()),
  lastUsedAtMs: z.nullable(z.number()),
  revokedAtMs: z.optional(z.number()),
});
const page = z.object({ operators: z.array(listed), nextCursor: z.optional(z.string()) });
const revoked = z.object({
  operatorId: z.string(),
  revokedAtMs: z.number(),
  ended: z.object({ operators: z.number(), invites: z.number(), apiKeys: z.number() }),
});

/** An operator without its key; times in milliseconds since 1970, `revokedAtMs` of one that has been revoked. */
export type ListedOperator = z.infer<typeof listed>;
/** What ended with an operator's key: everything that was made with it. */
export type RevokedOperator = z.infer<typeof revoked>;

/** The operators of an installation. */
export type Operators = {
  /** Makes an operator; the key is in the answer and nowhere else. */
  create(operator: {
    readonly name: string;
    readonly role: OperatorRole;
    readonly expiresAtMs?: number | undefined;
  }): Promise<z.infer<typeof created>>;
  /** `nextCursor` is null on the last page. */
  list(query?: {
    readonly cursor?: string | undefined;
    readonly limit?: number | undefined;
  }): Promise<{ readonly operators: readonly ListedOperator[]; readonly nextCursor: string | null }>;
  /** Ends a key and everything that was made with it: when this resolves, it is over. */
  revoke(operatorId: string): Promise<RevokedOperator>;
};

/** @param call how the operator calls methods */
export function createOperators(call: CallMethod): Operators {
  return {
    create: async (operator) => parseAnswer(created, await call("operator/create", { ...operator })),
    async list(query = {}) {
      const { operators, nextCursor } = parseAnswer(page, await call("operator/list", { ...query }));
      return { operators, nextCursor: nextCursor ?? null };
    },
    revoke: async (operatorId) => parseAnswer(revoked, await call("operator/revoke", { operatorId })),
  };
}
