/** Whether the trust by which a message was judged still holds: of its pair, or of the group that it was sent in. */
import type { AgentDid } from "../../wire/did.ts";
import { parseGroupId } from "../../wire/group-id.ts";
import type { Envelope } from "../protocol/transfer.ts";
import type { GroupFences } from "./group-fences.ts";
import type { PeerFences } from "./peer-fences.ts";

/** By what a message was judged; neither epoch where pairing is not consulted. */
export type Judged = Pick<Envelope, "trustEpoch" | "groupId" | "groupEpoch">;

export type TrustFences = {
  /** Whether a message between this agent and a peer, in either direction, may still pass. */
  admits(peer: AgentDid, judged: Judged): boolean;
};

/** @returns both kinds of fences of one gate, as one question */
export function createTrustFences(deps: {
  self: AgentDid;
  peers: Pick<PeerFences, "admits">;
  groups: Pick<GroupFences, "admits">;
}): TrustFences {
  const { self, peers, groups } = deps;
  return {
    admits(peer, { trustEpoch, groupId, groupEpoch }) {
      if (groupEpoch === undefined) return trustEpoch === undefined || peers.admits(peer, trustEpoch);
      const group = parseGroupId(groupId ?? "");
      return group !== null && groups.admits(group, groupEpoch, [self, peer]);
    },
  };
}
