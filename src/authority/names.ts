/** Names and epochs of authorities, as their fencing tokens in D1 carry them. */
import type { Scope } from "./scopes.ts";

/** The fencing token of a key that is over. A key is ended once and its id never comes again. */
export const ENDED_EPOCH = 1;

/** An agent's identity tokens. */
export const agentAuthority = (self: string): string => `agent:${self}`;

/** Everything that was issued to an agent beside its own tokens: devices, keys, shared secrets, all generations below its epoch. */
export const issuedAuthority = (self: string): string => `issued:${self}`;

/** A device of an agent. */
export const deviceAuthority = (self: string, deviceId: string): string => `device:${self}/${deviceId}`;

/** What a device made with one of its scopes: over once the device has lost that scope at a later epoch. */
export const derivedAuthority = (self: string, deviceId: string, scope: Scope): string =>
  `derived:${self}/${deviceId}#${scope}`;

/** An API key. */
export const apiKeyAuthority = (apiKeyId: string): string => `apikey:${apiKeyId}`;

/** An agent's shared secret. */
export const sharedAuthority = (self: string): string => `shared:${self}`;
