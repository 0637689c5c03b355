/** Who holds a credential, as shares of an agent's rate, sockets and deliveries are counted. */
import type { Principal } from "./principal.ts";

/** `agent`, `device:<deviceId>`, `shared` or `apiKey:<apiKeyId>`; the same for each token, socket and ticket of one credential. */
export type Holder = string;

/** The agent by its own credential: what is kept for it no other holder can use up. */
export const AGENT_HOLDER: Holder = "agent";

/** @returns the holder of a principal's credential. @throws Error for the operator and for an invite, which hold nothing of an agent's */
export function holderOf(principal: Principal): Holder {
  switch (principal.kind) {
    case "agent":
      return AGENT_HOLDER;
    case "device":
      return `device:${principal.deviceId}`;
    case "shared":
      return "shared";
    case "apiKey":
      return `apiKey:${principal.apiKeyId}`;
    case "invite":
    case "operator":
      throw new Error("holds no share of an agent");
  }
}
