/** What an operator may be, from everything to the numbers alone (contract §2). What each may do stands in `rpc/permissions.ts`. */
export const OPERATOR_ROLES = ["owner", "admin", "registrar", "viewer", "metrics"] as const;

/**
 * `owner` may everything and is the only one to make operators; `admin` everything else; `registrar` makes invites and agents and
 * lists both; `viewer` reads; `metrics` reads the numbers alone.
 */
export type OperatorRole = (typeof OPERATOR_ROLES)[number];
