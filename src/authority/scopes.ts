/** Scopes: what a credential may be used for (contract §5, Devices). */

/** Contract §5, Devices: what a credential may be used for. */
export const SCOPES = ["relay", "send", "tasks:read", "tasks:write", "devices", "admin"] as const;

export type Scope = (typeof SCOPES)[number];

/** What a shared secret carries. */
export const SHARED_SCOPES: readonly Scope[] = ["relay", "send"];

/** Scopes in their one order, each once. */
export const inOrder = (scopes: readonly Scope[]): Scope[] => SCOPES.filter((scope) => scopes.includes(scope));

/** Whether all scopes are among those of the bounds. */
export const isWithin = (scopes: readonly Scope[], bounds: readonly Scope[]): boolean =>
  scopes.every((scope) => bounds.includes(scope));
