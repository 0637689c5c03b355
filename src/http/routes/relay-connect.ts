/** `GET /relay/connect`: from a verified request, or a relay ticket, to a socket on the agent's gate. Contract §3 and §4. */
import type { Context, Handler } from "hono";
import type { Passed } from "../../auth/passed.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import { type Reason, refusal, refusalError } from "../../auth/reasons.ts";
import { agentOfRelayTicket } from "../../gate/relay/tickets.ts";
import { type Upgrade, UPGRADE_HEADER, writeUpgrade } from "../../gate/protocol/upgrade.ts";
import type { Fields } from "../../telemetry/log.ts";
import { type AgentDid, didAuthority } from "../../wire/did.ts";
import { problemResponse, ProxyError } from "../../wire/problem.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import { RELAY_SUBPROTOCOL_V1, TICKET_SUBPROTOCOL_PREFIX } from "../../wire/relay-close.ts";
import { authenticate } from "../authenticate.ts";
import {
  acceptedByGate,
  gateCallerOf,
  gateFailed,
  gateStub,
  refusedByGate,
  refuseUnknownAgent,
  refuseUnknownCaller,
} from "../gate-client.ts";
import type { HttpEnv } from "../middleware/request-context.ts";

const PAGE_ORIGIN_LOGGED = 256;

/** `GET /relay/connect`, contract §4. @returns a handler that hands the upgrade to the agent's gate */
export function relayConnect(needs: RouteNeeds): Handler<HttpEnv> {
  return async (c) => {
    if (c.req.header("Upgrade")?.toLowerCase() !== "websocket") throw new ProxyError("PROXY_UPGRADE_REQUIRED");
    refuseForeignOrigin(c);
    const offered = offeredProtocols(c.req.header("Sec-WebSocket-Protocol"));
    const chosen = offered.find((protocol) => protocol === RELAY_SUBPROTOCOL_V1);
    const ticket = offered.find((protocol) => protocol.startsWith(TICKET_SUBPROTOCOL_PREFIX));
    if (ticket !== undefined) return connectByTicket(c, ticket, chosen ?? ticket);

    const passed = await authenticate(c, needs);
    const caller = gateCallerOf(c, passed);
    if (caller === null) throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
    try {
      const answer = await upgrade(c, caller.agentDid, {
        requestId: c.get("requestId"),
        origin: c.get("address"),
        caller: caller.caller,
        ...(chosen === undefined ? {} : { protocol: chosen }),
      });
      if (answer.status !== 101) return await refusedUpgrade(c, passed, answer);
      acceptedByGate(c, passed);
      return answer;
    } catch (error) {
      throw refusedByGate(c, passed, gateFailed(c, error));
    }
  };
}

/** What a gate's code means to the decision; the gate's own log has its reason. Every other code: no verdict on the caller. */
const REFUSALS: Partial<Record<string, Reason>> = {
  PROXY_AUTH_REPLAY: "gate-nonce-replayed",
  PROXY_AUTH_TIMESTAMP_SKEW: "gate-timestamp-skewed",
  PROXY_AUTH_REVOKED: "gate-agent-revoked",
  PROXY_AUTH_INVALID_TOKEN: "gate-credential-refused",
  PROXY_AUTH_CLIENT_INVALIDATED: "gate-client-invalidated",
  PROXY_RATE_LIMIT_EXCEEDED: "gate-rate-exceeded",
};

/** Closes the decision with what the gate answered, which goes to the caller as it is. */
async function refusedUpgrade(c: Context<HttpEnv>, passed: Passed, answer: Response): Promise<Response> {
  const document = await answer.text();
  const { code } = JSON.parse(document) as { code: string };
  refusedByGate(c, passed, refusal(REFUSALS[code] ?? "gate-unavailable", { code }));
  return new Response(document, answer);
}

/** A page of another site could use a ticket it got hold of; those that may are listed. Others send no `Origin`. */
function refuseForeignOrigin(c: Context<HttpEnv>): void {
  const origin = c.req.header("Origin");
  if (origin === undefined || c.get("runtime").config.relayAllowedOrigins.includes(origin)) return;
  if (origin === new URL(c.req.url).origin) return;
  const refused = new ProxyError("PROXY_AUTH_FORBIDDEN", { reason: "origin not allowed" });
  // As the page says, which may be anything: bounded, since it is written down.
  logRefusal(c, refused, { pageOrigin: origin.slice(0, PAGE_ORIGIN_LOGGED) });
  throw refused;
}

/** RFC 6455 §11.3.4. */
function offeredProtocols(header: string | undefined): string[] {
  return (header ?? "").split(",").map((protocol) => protocol.trim());
}

/** @param protocol that offers the ticket @param chosen the one that the answer chooses */
async function connectByTicket(c: Context<HttpEnv>, protocol: string, chosen: string): Promise<Response> {
  const ticket = protocol.slice(TICKET_SUBPROTOCOL_PREFIX.length);
  const agentDid = agentOfRelayTicket(ticket);
  if (agentDid === null || didAuthority(agentDid) !== c.get("runtime").config.registryAuthority) {
    const refused = new ProxyError("PROXY_AUTH_INVALID_TOKEN", { reason: "no relay ticket" });
    logRefusal(c, refused);
    throw refused;
  }
  const ticketSha256 = await sha256Base64Url(new TextEncoder().encode(ticket));
  try {
    const answer = await upgrade(c, agentDid, {
      requestId: c.get("requestId"),
      origin: c.get("address"),
      ticketSha256,
      protocol: chosen,
    });
    // Headers of an answer that came from the gate cannot be added to.
    return answer.status === 101 ? answer : new Response(answer.body, answer);
  } catch (error) {
    gateFailed(c, error);
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { retryAfterMs: 1_000 });
  }
}

function logRefusal(c: Context<HttpEnv>, { code, reason }: ProxyError, fields: Fields = {}): void {
  c.get("log").warn("relay.refused", { code, reason, ...fields });
}

/** The request to the gate is a new one: nothing of the caller's headers goes with it. */
async function upgrade(c: Context<HttpEnv>, agentDid: AgentDid, what: Upgrade): Promise<Response> {
  const unknown =
    "caller" in what
      ? await refuseUnknownCaller(c, agentDid, what.caller)
      : await refuseUnknownAgent(c, agentDid, "nothing");
  if (unknown !== null) {
    const refused = refusalError(unknown);
    logRefusal(c, refused);
    return problemResponse(refused, what.requestId);
  }
  const headers = { Upgrade: "websocket", [UPGRADE_HEADER]: writeUpgrade(what) };
  return gateStub(c, agentDid).fetch("https://gate/relay", { headers });
}
