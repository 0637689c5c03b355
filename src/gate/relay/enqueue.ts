/** `enqueue` frames: messages that this agent sends over its socket. Contract §4. */
import { refusalError } from "../../auth/reasons.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Log } from "../../telemetry/log.ts";
import type { AgentDid } from "../../wire/did.ts";
import { enqueueAckFrame, frameHead } from "../../wire/frame-encoder.ts";
import type { EnqueueFrame } from "../../wire/frames.ts";
import { type GroupId, parseGroupId } from "../../wire/group-id.ts";
import { ProxyError, proxyErrorFrom } from "../../wire/problem.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import type { AccessValidations } from "../admission/access-validations.ts";
import type { GroupFences } from "../admission/group-fences.ts";
import type { TrustFences } from "../admission/trust-fences.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Envelope } from "../protocol/transfer.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Connections } from "./connection.ts";
import type { Session } from "./sockets.ts";

/** By what this agent may send; `fresh` asks the store. Both throw a ProxyError where it may not. */
export type SendTrust = {
  /** @returns the epoch of a pair */
  pair(to: AgentDid, how?: { fresh: boolean }): Promise<number>;
  /** @param to null for all of the group @returns its epoch, and whom the message goes to */
  group(
    groupId: GroupId,
    to: AgentDid | null,
    how?: { fresh: boolean },
  ): Promise<{ epoch: number; recipients: readonly AgentDid[] }>;
};

export type Enqueue = {
  /** Takes a message in and answers with `enqueue_ack`: on disk before `accepted: true`. */
  run(session: Session, frame: EnqueueFrame): Promise<void>;
  /** Answers that the frame was not taken, by the code of the reason. */
  refuse(session: Session, frameId: string, code: string): void;
};

export type EnqueueDeps = {
  self: AgentDid;
  connections: Pick<Connections, "send">;
  outbox: Pick<Outbox, "accept" | "acceptForGroup">;
  trustFences: Pick<TrustFences, "admits">;
  groupFences: Pick<GroupFences, "isComplete">;
  commits: GroupCommit;
  trust: SendTrust;
  endReason: (ref: AuthorityRef) => string | null;
  /** Knows this agent's name. */
  accessValidations: Pick<AccessValidations, "agentName">;
  now: () => number;
  log: Log;
};

/** @returns what one gate does with `enqueue` frames. */
export function createEnqueue(deps: EnqueueDeps): Enqueue {
  const { self, connections, outbox, trustFences, groupFences, commits, endReason, now, log } = deps;

  /** Whether what was judged so may go to those whom it is for, as far as this gate knows. */
  const mayGo = (frame: JudgedFrame): boolean => {
    if (frame.to !== null) return trustFences.admits(frame.to, frame.judged);
    const { judged, members } = frame;
    if (!groupFences.isComplete(judged.groupId, judged.groupEpoch)) return false;
    return members.every((member) => trustFences.admits(member, judged));
  };

  const judge = async ({ toAgentDid, groupId: text }: EnqueueFrame, how?: { fresh: boolean }): Promise<JudgedFrame> => {
    const to = toAgentDid ?? null;
    if (text === undefined && to !== null) {
      return { to, judged: { trustEpoch: await deps.trust.pair(to, how) } };
    }
    const groupId = parseGroupId(text ?? "");
    if (groupId === null) throw new ProxyError("PROXY_BAD_REQUEST", { reason: "group-malformed" });
    const { epoch, recipients: members } = await deps.trust.group(groupId, to, how);
    const judged = { groupId, groupEpoch: epoch };
    return to === null ? { to, judged, members } : { to, judged };
  };

  const accept = async (session: Session, frame: EnqueueFrame): Promise<string | undefined> => {
    if (!session.scopes.includes("send")) throw new ProxyError("PROXY_AUTH_FORBIDDEN");
    if (frame.toAgentDid === self) throw new ProxyError("PROXY_HOOK_RECIPIENT_INVALID");
    const known = await judge(frame);
    // The pairing may be newer than what is remembered of it.
    const judged = mayGo(known) ? known : await judge(frame, { fresh: true });
    const payload = new TextEncoder().encode(frame.payloadText);
    const draft = {
      bytes: payload.length,
      envelope: JSON.stringify(envelopeOf(self, deps.accessValidations.agentName(), frame, judged.judged)),
      body: frame.payloadText,
      originFrameId: frame.id,
      idempotency: { key: `frame ${frame.id}`, bodySha256: await sha256Base64Url(payload) },
    };
    return commits.commit(() => {
      if (endReason(session.authority) !== null) throw new GateRefusal("gate-agent-revoked");
      if (!mayGo(judged)) throw new GateRefusal("gate-peer-fenced");
      if (judged.to !== null) return outbox.accept({ ...draft, to: judged.to }, now()).deliveryId;
      outbox.acceptForGroup({ ...draft, groupId: judged.judged.groupId, members: judged.members }, now());
      return undefined;
    });
  };

  const refuse: Enqueue["refuse"] = (session, frameId, code) => {
    connections.send(session, enqueueAckFrame(frameHead(now()), { ackId: frameId, accepted: false, reason: code }));
  };

  return {
    refuse,
    async run(session, frame) {
      try {
        const deliveryId = await accept(session, frame);
        const ack = { ackId: frame.id, accepted: true, ...(session.dialect === "v1" ? { deliveryId } : {}) };
        connections.send(session, enqueueAckFrame(frameHead(now()), ack));
      } catch (thrown) {
        const error = thrown instanceof GateRefusal ? refusalError(thrown.refusal) : proxyErrorFrom(thrown);
        if (error.status >= 500) log.error("relay.enqueue_failed", { code: error.code, reason: error.reason });
        refuse(session, frame.id, error.code);
      }
    },
  };
}

/** A frame whose sender may send it: to one (`to`), or to all of a group. */
type JudgedFrame =
  | { to: AgentDid; judged: { trustEpoch: number } | JudgedGroup }
  | { to: null; judged: JudgedGroup; members: readonly AgentDid[] };
type JudgedGroup = { groupId: GroupId; groupEpoch: number };

function envelopeOf(
  self: AgentDid,
  fromName: string | null,
  frame: EnqueueFrame,
  judged: JudgedFrame["judged"],
): Envelope {
  const { conversationId, replyTo } = frame;
  return {
    fromAgentDid: self,
    ...(fromName === null ? {} : { fromName }),
    contentType: "application/json",
    ...judged,
    ...(conversationId === undefined ? {} : { conversationId }),
    ...(replyTo === undefined ? {} : { replyTo }),
  };
}
