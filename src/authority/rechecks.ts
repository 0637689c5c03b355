/**
 * Every kind of credential states what is looked at again, and when: a kind that states nothing does not compile. The table
 * in docs/security.md is compared with this one by a test, and the code with both.
 */
import type { PrincipalKind } from "./principal.ts";

/** A relay ticket is no principal: it carries its issuer. */
export type CredentialKind = PrincipalKind | "relayTicket";

export type Recheck = {
  /** As the docs name it. */
  credential: string;
  /** Looked at when a request or a socket begins. */
  atRequest: string;
  /** Looked at again for each frame in either direction, before each effect and before each reply. */
  atFrame: string;
  /** What each batch of writes in D1 is fenced by; null where nothing can end between a request and its effect. */
  fence: string | null;
};

export const RECHECKS: { readonly [K in CredentialKind]: Recheck } = {
  agent: {
    credential: "agent",
    atRequest: "expiry, registry's list, revocation in the gate, access",
    atFrame: "expiry, revocation in the gate, which the registry's list is brought to",
    fence: "`agent:<did>`",
  },
  device: {
    credential: "device token",
    atRequest: "token's hash, proof by the device's key, expiry, agent in order",
    atFrame: "epoch, expiry, agent in order",
    fence: "`device:<did>/<deviceId>`, `issued:<did>`",
  },
  shared: {
    credential: "shared secret",
    atRequest: "secret's hash, agent in order",
    atFrame: "generation, agent in order",
    fence: "`shared:<did>`, `issued:<did>`",
  },
  apiKey: {
    credential: "API key",
    atRequest: "its row, expiry, what it descends from, agent in order",
    atFrame: "its end in the gate, generation, what it descends from, expiry, agent in order",
    fence: "`apikey:<apiKeyId>`, `issued:<did>`, the makers' `derived:<did>/<deviceId>#<scope>`, `apikey:…`",
  },
  invite: {
    credential: "invite",
    atRequest: "its row, expiry, uses left, proof by the newcomer's key",
    atFrame: "holds no socket",
    fence: "its row, in the commit that takes one use",
  },
  operator: {
    credential: "operator",
    atRequest: "secret's hash; of a key its row, role and expiry; of an assertion its signature, audience and expiry",
    atFrame: "holds no socket; a key's row again for each call, and every 0.5 s while it runs",
    fence: "a key's `operator:<operatorId>`",
  },
  relayTicket: {
    credential: "relay ticket",
    atRequest: "30 seconds, used once, its issuer's authority at that moment",
    atFrame: "as its issuer's",
    fence: "as its issuer's",
  },
};
