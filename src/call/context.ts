/** The context of one call: who calls, under which authority, and what the call may use. */
import type { Authority } from "../authority/authority.ts";
import type { Principal } from "../authority/principal.ts";
import type { Config } from "../config.ts";
import type { Bookmarks } from "../database/session.ts";
import type { Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";
import type { GateLocal } from "./gate.ts";
import type { RemoteGate } from "./remote-gate.ts";

export type CallContext = {
  env: Env;
  config: Config;
  db: D1Database;
  principal: Principal;
  authority: Authority;
  requestId: string;
  /** Where the call came from, for the audit: an address, or null. */
  origin: string | null;
  now: () => number;
  log: Log;
  /** The agent this call is about, the gate's own; null for an operator's call about no agent. */
  agentDid: AgentDid | null;
  gates: { of(did: AgentDid): RemoteGate };
  /** The gate that the call runs in; null where it runs in the Worker. */
  gate: GateLocal | null;
  /** How fresh a list must be, and how fresh a later one must be to see this call's writes; null where nobody asks. */
  bookmarks?: Bookmarks | null;
};
