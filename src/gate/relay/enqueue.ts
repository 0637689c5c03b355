/** `enqueue` frames: messages that this agent sends over its socket. Contract §4. */
import { refusalError } from "../../auth/reasons.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { enqueueAckFrame, frameHead } from "../../wire/frame-encoder.ts";
import type { EnqueueFrame } from "../../wire/frames.ts";
import { ProxyError, proxyErrorFrom } from "../../wire/problem.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import type { PeerFences } from "../admission/peer-fences.ts";
import type { Accepted, Outbox } from "../outbox/outbox.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Envelope } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Connections } from "./connection.ts";
import type { Session } from "./sockets.ts";

/** The trust epoch by which this agent may send to a peer; `fresh` asks the store. @throws ProxyError */
export type TrustEpoch = (to: AgentDid, how?: { fresh: boolean }) => Promise<number>;

export type Enqueue = {
  /** Takes a message in and answers with `enqueue_ack`: on disk before `accepted: true`. */
  run(session: Session, frame: EnqueueFrame): Promise<void>;
  /** Answers that the frame was not taken, by the code of the reason. */
  refuse(session: Session, frameId: string, code: string): void;
};

export type EnqueueDeps = {
  self: AgentDid;
  connections: Pick<Connections, "send">;
  outbox: Pick<Outbox, "accept">;
  fences: Pick<PeerFences, "admits">;
  commits: GroupCommit;
  trustEpoch: TrustEpoch;
  endReason: (ref: AuthorityRef) => string | null;
  now: () => number;
  log: Log;
};

/** @returns what one gate does with `enqueue` frames. */
export function createEnqueue(deps: EnqueueDeps): Enqueue {
  const { self, connections, outbox, fences, commits, endReason, now, log } = deps;

  const trustEpochOf = async (to: AgentDid): Promise<number> => {
    const known = await deps.trustEpoch(to);
    // The pairing may be newer than what is remembered of it.
    return fences.admits(to, known) ? known : deps.trustEpoch(to, { fresh: true });
  };

  const accept = async (session: Session, frame: EnqueueFrame): Promise<Accepted> => {
    if (!session.scopes.includes("send")) throw new ProxyError("PROXY_AUTH_FORBIDDEN");
    if (frame.toAgentDid === self) throw new ProxyError("PROXY_HOOK_RECIPIENT_INVALID");
    const trustEpoch = await trustEpochOf(frame.toAgentDid);
    const payload = new TextEncoder().encode(frame.payloadText);
    const draft = {
      to: frame.toAgentDid,
      bytes: payload.length,
      envelope: JSON.stringify(envelopeOf(self, frame, trustEpoch)),
      body: frame.payloadText,
      originFrameId: frame.id,
      idempotency: { key: `frame ${frame.id}`, bodySha256: await sha256Base64Url(payload) },
    };
    return commits.commit(() => {
      if (endReason(session.authority) !== null) throw new GateRefusal("gate-agent-revoked");
      if (!fences.admits(frame.toAgentDid, trustEpoch)) throw new GateRefusal("gate-peer-fenced");
      return outbox.accept(draft, now());
    });
  };

  const refuse: Enqueue["refuse"] = (session, frameId, code) => {
    connections.send(session, enqueueAckFrame(frameHead(now()), { ackId: frameId, accepted: false, reason: code }));
  };

  return {
    refuse,
    async run(session, frame) {
      try {
        const { deliveryId } = await accept(session, frame);
        const ack = { ackId: frame.id, accepted: true, deliveryId };
        connections.send(session, enqueueAckFrame(frameHead(now()), ack));
      } catch (thrown) {
        const error = thrown instanceof GateRefusal ? refusalError(thrown.refusal) : proxyErrorFrom(thrown);
        if (error.status >= 500) log.error("relay.enqueue_failed", { code: error.code, reason: error.reason });
        refuse(session, frame.id, error.code);
      }
    },
  };
}

function envelopeOf(self: AgentDid, frame: EnqueueFrame, trustEpoch: number): Envelope {
  const { conversationId, groupId, replyTo } = frame;
  return {
    fromAgentDid: self,
    contentType: "application/json",
    trustEpoch,
    ...(conversationId === undefined ? {} : { conversationId }),
    ...(groupId === undefined ? {} : { groupId }),
    ...(replyTo === undefined ? {} : { replyTo }),
  };
}
