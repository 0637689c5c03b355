/**
 * The audit log of an installation, for the operator: who did what to whom, newest first. It never holds a secret.
 *
 * @example
 * ```ts
 * const { entries } = await operator.audit({ action: "identity.register", limit: 1 });
 * console.log(entries[0]?.actor, entries[0]?.result); // operator ok
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer } from "../transport/http-call.ts";
import type { CallMethod } from "./rpc.ts";

const entry = z.object({
  id: z.string(),
  atMs: z.number(),
  actor: z.string(),
  /** The name of the operator who did it. */
  operator: z.optional(z.nullable(z.string())),
  action: z.string(),
  subject: z.nullable(z.string()),
  agentDid: z.nullable(z.string()),
  origin: z.nullable(z.string()),
  result: z.string(),
  requestId: z.nullable(z.string()),
  details: z.record(z.string(), z.unknown()),
});
const page = z.object({ entries: z.array(entry), nextCursor: z.optional(z.string()) });

/** Who did what to whom; `atMs` in milliseconds since 1970. */
export type AuditEntry = z.infer<typeof entry>;
/** `nextCursor` is null on the last page. */
export type AuditPage = { readonly entries: readonly AuditEntry[]; readonly nextCursor: string | null };

/** Which entries, and how many. */
export type AuditQuery = {
  /** Whom it was done to, e.g. `agent:<did>` or `device:<did>/<deviceId>`. */
  readonly subject?: string | undefined;
  /** What was done, e.g. `device.token.rotate`. */
  readonly action?: string | undefined;
  /** From this time on, in milliseconds since 1970. */
  readonly sinceMs?: number | undefined;
  /** Up to this time. */
  readonly untilMs?: number | undefined;
  /** 1 to 100; 100 by default. */
  readonly limit?: number | undefined;
  readonly cursor?: string | undefined;
};

/** @returns a page of the audit log */
export async function listAudit(call: CallMethod, query: AuditQuery): Promise<AuditPage> {
  const { entries, nextCursor } = parseAnswer(page, await call("audit/list", { ...query }));
  return { entries, nextCursor: nextCursor ?? null };
}
