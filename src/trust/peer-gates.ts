/** What trust works with, and what it asks of other agents' gates. */
import { REMOTE_GATE_TIMEOUT_MS, type RemoteGate } from "../call/remote-gate.ts";
import type { Log } from "../telemetry/log.ts";
import type { AgentDid } from "../wire/did.ts";

/** The store, the clock (milliseconds since 1970) and the log. */
export type TrustDeps = { readonly db: D1Database; readonly now: () => number; readonly log: Log };

/** The gates of other agents; what they were asked is on disk there before they answer. */
export type PeerGates = { of(did: AgentDid): Pick<RemoteGate, "notify" | "fencePeer"> };

/** A request waits this long for another agent's gate; then what it was to do is left to housekeeping. */
export const PEER_TIMEOUT_MS = REMOTE_GATE_TIMEOUT_MS;
