/** Peers whose trust was removed: below the epoch of the removal nothing of theirs is accepted, whatever a cache says. */
import type { AgentDid } from "../../wire/did.ts";

export type PeerFences = {
  /** Whether a message judged by this trust epoch may pass. */
  admits(peer: AgentDid, trustEpoch: number): boolean;
  raise(peer: AgentDid, trustEpoch: number): void;
};

/** @param sql the gate's own database; memory mirrors it */
export function createPeerFences(sql: SqlStorage): PeerFences {
  const fences = new Map<string, number>(
    sql
      .exec<{ peer_did: string; trust_epoch: number }>("SELECT peer_did, trust_epoch FROM peer_fences")
      .toArray()
      .map((row) => [row.peer_did, row.trust_epoch]),
  );
  return {
    admits: (peer, trustEpoch) => trustEpoch >= (fences.get(peer) ?? 0),
    raise(peer, trustEpoch) {
      if ((fences.get(peer) ?? 0) >= trustEpoch) return;
      sql.exec(
        "INSERT INTO peer_fences (peer_did, trust_epoch) VALUES (?, ?) ON CONFLICT (peer_did) DO UPDATE SET trust_epoch = excluded.trust_epoch",
        peer,
        trustEpoch,
      );
      fences.set(peer, trustEpoch);
    },
  };
}
