/**
 * Whose authority is over. The one truth about it for everything of this agent: sockets and calls carry what they began
 * with, and are compared with what is written here, at that moment.
 */
import type { Principal } from "../rpc/method.ts";
import { RELAY_CLOSE_REASON } from "../wire/relay-close.ts";
import type { AgentPrincipal } from "../gate/admission/agent.ts";
import type { ApiKeys } from "./ended-api-keys.ts";
import type { Devices } from "./devices.ts";
import { readNumber, readText, writeMeta } from "../gate/storage/schema.ts";
import type { SharedSecret } from "./shared-secret.ts";

/** What a socket or a call remembers of the authority it began under. Plain data: it stands in socket attachments. */
export type AuthorityRef =
  | { kind: "agent"; epoch: number; jti: string; expMs: number; principal: AgentPrincipal }
  | { kind: "device"; epoch: number; expMs: number; principal: Extract<Principal, { kind: "device" }>; lastWord?: true }
  | { kind: "shared"; epoch: number; expMs: null; principal: Extract<Principal, { kind: "shared" }> }
  | {
      kind: "apiKey";
      epoch: number;
      expMs: number | null;
      principal: Extract<Principal, { kind: "apiKey" }>;
      generation: number;
      lastWord?: true;
    };

/**
 * An end of the whole agent while it is under way. Several may be at once, a revocation and a re-key say: nothing is
 * accepted before the last of them has settled, and a revocation that is committed wins over whatever else settles.
 */
export type AgentEnd = {
  isUnderWay(): boolean;
  /** Re-keyed: the agent goes on with the token made for it. */
  goesOn(): void;
  /** Refused, and nothing has changed. */
  cameToNothing(): void;
  /** Nobody knows: the agent stays ended until another end says more. */
  isUnknown(): void;
  /** Revoked. Also what had let it go on meanwhile is over. */
  isForGood(): void;
};

export type AgentAuthority = ReturnType<typeof createAgentAuthority>;

/** The agent's own credential: its identity tokens, ended one by one or all together. */
export function createAgentAuthority(sql: SqlStorage) {
  let epoch = readNumber(sql, "agent_epoch") ?? 0;
  /** What began below this epoch is over, whatever its token. */
  let endedBelow = readNumber(sql, "agent_ended_below") ?? 0;
  /** Why nothing of this agent is accepted at the moment; null while it is in order. */
  let ended = readText(sql, "agent_ended");
  /** What holds once no end is under way. */
  let lasting = ended;
  const underWay = new Set<object>();
  /** Revoked, and D1 has it: nothing lets this agent go on. */
  let isOver = readNumber(sql, "agent_over") === 1;
  const endedTokens = new Set(
    sql
      .exec<{ jti: string }>("SELECT jti FROM ended_tokens")
      .toArray()
      .map((row) => row.jti),
  );

  const raise = (): void => {
    epoch += 1;
    writeMeta(sql, "agent_epoch", epoch);
  };

  return {
    epoch: (): number => epoch,
    isEnded: (): boolean => ended !== null,
    /** Ended for good; until then, an agent that is ended may yet go on. */
    isOver: (): boolean => isOver,

    /** Whether an identity token may begin something new. */
    accepts: (jti: string): boolean => ended === null && !endedTokens.has(jti),

    /** Whether what began under an epoch and an identity token may go on. */
    holds: (begun: { epoch: number; jti: string }): boolean =>
      ended === null && begun.epoch >= endedBelow && !endedTokens.has(begun.jti),

    /** Ends every identity token at once, known or not. What it comes to is told by the returned handle. */
    endAll(reason: string): AgentEnd {
      raise();
      ended = reason;
      endedBelow = epoch;
      writeMeta(sql, "agent_ended", reason);
      writeMeta(sql, "agent_ended_below", endedBelow);
      const self = {};
      underWay.add(self);
      const settle = (outcome: string | null): void => {
        if (!underWay.delete(self)) return;
        if (!isOver) lasting = outcome;
        if (underWay.size > 0) return;
        ended = lasting;
        writeMeta(sql, "agent_ended", ended);
      };
      return {
        isUnderWay: () => underWay.has(self),
        goesOn: () => settle(null),
        cameToNothing: () => settle(lasting),
        isUnknown: () => settle(reason),
        isForGood() {
          settle(reason);
          isOver = true;
          writeMeta(sql, "agent_over", 1);
          lasting = reason;
          if (underWay.size > 0 || ended !== null) return;
          ended = reason;
          writeMeta(sql, "agent_ended", reason);
        },
      };
    },

    /**
     * Ends single identity tokens. The epoch rises for the sake of the fence in D1; what runs under another token of the
     * agent goes on. Returns whether any of them was news.
     */
    endTokens(tokens: readonly { jti: string; expMs: number }[], reason: string): boolean {
      const news = tokens.filter(({ jti }) => !endedTokens.has(jti));
      for (const { jti, expMs } of news) {
        sql.exec(
          "INSERT INTO ended_tokens (jti, expires_at_ms, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
          jti,
          expMs,
          reason,
        );
        endedTokens.add(jti);
      }
      if (news.length > 0 && ended === null) raise();
      return news.length > 0;
    },

    /** Forgets tokens that have expired by themselves. */
    prune(nowMs: number): void {
      for (const { jti } of sql
        .exec<{ jti: string }>("DELETE FROM ended_tokens WHERE expires_at_ms < ? RETURNING jti", nowMs)
        .toArray()) {
        endedTokens.delete(jti);
      }
    },
  };
}

export type Authorities = { agent: AgentAuthority; devices: Devices; shared: SharedSecret; apiKeys: ApiKeys };

/** Why something that began under an authority may not go on at this moment, as its socket is told; null when it may. */
export function whyEnded(
  { agent, devices, shared, apiKeys }: Authorities,
  ref: AuthorityRef,
  nowMs: number,
): string | null {
  switch (ref.kind) {
    case "agent":
      if (!agent.holds(ref)) return RELAY_CLOSE_REASON.agentRevoked;
      break;
    case "device":
      if (agent.isEnded()) return RELAY_CLOSE_REASON.agentRevoked;
      if (!devices.holds(ref)) return devices.endReason(ref.principal.deviceId);
      break;
    case "shared":
      if (agent.isEnded()) return RELAY_CLOSE_REASON.agentRevoked;
      if (!shared.holds(ref.epoch)) return RELAY_CLOSE_REASON.gatewayAuthChanged;
      break;
    case "apiKey":
      if (agent.isEnded()) return RELAY_CLOSE_REASON.agentRevoked;
      if (!apiKeys.holds(ref)) return RELAY_CLOSE_REASON.gatewayAuthChanged;
      break;
  }
  return ref.expMs !== null && ref.expMs <= nowMs ? RELAY_CLOSE_REASON.credentialExpired : null;
}

/** The authority's name and epoch in D1, where effects are fenced. */
export function fencingToken(self: string, ref: AuthorityRef): { authority: string; epoch: number } {
  switch (ref.kind) {
    case "agent":
      return { authority: `agent:${self}`, epoch: ref.epoch };
    case "device":
      return { authority: deviceAuthority(self, ref.principal.deviceId), epoch: ref.epoch };
    case "shared":
      return { authority: sharedAuthority(self), epoch: ref.epoch };
    case "apiKey":
      return { authority: apiKeyAuthority(ref.principal.apiKeyId), epoch: ref.epoch };
  }
}

export const deviceAuthority = (self: string, deviceId: string): string => `device:${self}/${deviceId}`;
export const apiKeyAuthority = (apiKeyId: string): string => `apikey:${apiKeyId}`;
export const sharedAuthority = (self: string): string => `shared:${self}`;
