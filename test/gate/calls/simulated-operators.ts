/** Operators and invites as the played D1 of the random histories knows them. */
import type { OperatorPrincipal } from "../../../src/authority/operator.ts";

type Operator = { name: string; revokedAtMs: number | null };
type Invite = { maker: string; revokedAtMs: number | null };

/** @param isForEver D1 says of each key that it holds: what the checker has to notice */
export function createSimulatedOperators(isForEver: boolean) {
  const operators = new Map<string, Operator>();
  const invites = new Map<string, Invite>();

  return {
    add(operatorId: string, name: string): string {
      operators.set(operatorId, { name, revokedAtMs: null });
      return operatorId;
    },
    principalOf: (operatorId: string): OperatorPrincipal => ({
      kind: "operator",
      name: operators.get(operatorId)?.name ?? "",
      role: "admin",
      id: operatorId,
      isRevocable: true,
    }),
    mayUse: (inviteId: string): boolean => invites.get(inviteId)?.revokedAtMs === null,

    /** Rows of a SELECT, with the columns that it has, in their order. */
    select(text: string, args: readonly unknown[]): Record<string, unknown>[] {
      const made = (maker: string): boolean => (JSON.parse(String(args[0])) as string[]).includes(maker);
      if (text.includes('from "api_keys"')) return [];
      if (text.includes('from "invites"'))
        return [...invites]
          .filter(([, { maker, revokedAtMs }]) => revokedAtMs === null && made(maker))
          .map(([inviteId]) => ({ invite_id: inviteId }));
      if (!text.includes('from "operators"')) throw new Error(`nobody plays ${text}`);
      if (text.includes('"created_by" in')) return [];
      const operatorId = String(args[0]);
      const found = operators.get(operatorId);
      if (found === undefined) return [];
      if (text.includes('"revoked_at_ms" is null'))
        return found.revokedAtMs === null || isForEver ? [{ operator_id: operatorId }] : [];
      return [
        {
          operator_id: operatorId,
          name: found.name,
          role: "admin",
          created_by: "operator",
          created_at_ms: 0,
          expires_at_ms: null,
          last_used_at_ms: null,
          revoked_at_ms: found.revokedAtMs,
        },
      ];
    },

    /** What a statement of a batch changes here, if it does. */
    apply(text: string, args: readonly unknown[]): void {
      if (text === "INVITE") invites.set(String(args[0]), { maker: String(args[1]), revokedAtMs: null });
      const table = text.startsWith('update "operators"')
        ? operators
        : text.startsWith('update "invites"')
          ? invites
          : null;
      const row = table?.get(String(args[1]));
      if (row !== undefined) row.revokedAtMs ??= Number(args[0]);
    },
  };
}
