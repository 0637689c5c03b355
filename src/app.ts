/** Every route on one page: method, path, who may come, and what answers. */
import { type Context, Hono } from "hono";
import { HOOK, type RouteNeeds } from "./auth/form.ts";
import { addressLimit } from "./http/middleware/rate-limit.ts";
import { type HttpEnv, requestContext } from "./http/middleware/request-context.ts";
import { measure } from "./http/middleware/request-metrics.ts";
import { bodyParams, noParams, pathAndQuery, queryParams } from "./http/params.ts";
import { claimDevice } from "./http/routes/device-claim.ts";
import { enroll } from "./http/routes/enroll.ts";
import { health, ready, time } from "./http/routes/health.ts";
import { hook } from "./http/routes/hook.ts";
import { join } from "./http/routes/join.ts";
import { methodRoute } from "./http/routes/method-route.ts";
import { metrics } from "./http/routes/metrics.ts";
import { openapi } from "./http/routes/openapi.ts";
import { shownTicket } from "./http/routes/pair-ticket.ts";
import { relayConnect } from "./http/routes/relay-connect.ts";
import { rpc } from "./http/routes/rpc.ts";
import { accessValidationResponse, crlResponse, keysResponse } from "./identity/documents/documents.ts";
import { ProxyError } from "./wire/problem.ts";
import { ACCESS_VALIDATE_PATH, CRL_PATH, KEYS_PATH } from "./wire/registry-documents.ts";

const agentOnly = (route: string): RouteNeeds => ({ route, accepts: ["agent"], access: true, recipient: false });
/** The agent's own way to new tokens: it has no access token yet, or none any more. */
const agentWithoutAccess = (route: string): RouteNeeds => ({ ...agentOnly(route), access: false });
/** Pairing: existing clients send no access token; one that is sent is judged. */
const pairing = (route: string): RouteNeeds => ({ ...agentOnly(route), access: "if-sent" });
const operatorOnly = (route: string): RouteNeeds => ({ route, accepts: ["operator"], access: false, recipient: false });
const agentOrOperator = (route: string): RouteNeeds => ({ ...agentOnly(route), accepts: ["agent", "operator"] });

/** A relay client: the agent itself, a device of its, or whoever holds its shared secret. */
const relayClient = (route: string): RouteNeeds => ({ ...agentOnly(route), accepts: ["agent", "device", "shared"] });

export const app = new Hono<HttpEnv>();

app.use(requestContext);
app.use(measure);
app.use(addressLimit);

app.post("/hooks/agent", hook(HOOK));
app.post("/hooks/message", hook(HOOK));
app.get("/relay/connect", relayConnect(relayClient("relay.connect")));
app.get("/v1/relay/connect", relayConnect(relayClient("relay.connect")));
app.post("/v1/relay/tickets", methodRoute(relayClient("relay.ticket"), { method: "relay.ticket", params: noParams }));

app.post("/rpc", rpc);
app.post("/v1/devices/claim", claimDevice);

app.get(
  "/v1/deliveries/:deliveryId",
  methodRoute(relayClient("delivery.get"), { method: "delivery.get", params: pathAndQuery }),
);
app.get(
  "/v1/inbox",
  methodRoute(relayClient("inbox.fetch"), {
    method: "inbox.fetch",
    params: queryParams,
    waitMs: (c) => waitMsOf(c.req.query("waitSeconds")),
  }),
);
app.post("/v1/inbox/ack", methodRoute(relayClient("inbox.ack"), { method: "inbox.ack", params: bodyParams() }));
app.post(
  "/v1/relay/delivery-receipts",
  methodRoute(relayClient("receipt.report"), { method: "receipt.report", params: bodyParams(), status: 202 }),
);
app.get(
  "/v1/relay/delivery-receipts",
  methodRoute(relayClient("receipt.get"), {
    method: "receipt.get",
    params: queryParams,
    statusOf: ({ found }) => (found === true ? 200 : 404),
  }),
);
app.get(
  "/v1/dead-letters",
  methodRoute(agentOrOperator("dead-letter.list"), {
    method: "dead-letter.list",
    params: queryParams,
    inGateOf: "agentDid",
  }),
);
app.post(
  "/v1/dead-letters/:id/replay",
  methodRoute(agentOrOperator("dead-letter.replay"), {
    method: "dead-letter.replay",
    params: pathAndQuery,
    inGateOf: "agentDid",
  }),
);
app.delete(
  "/v1/dead-letters/:id",
  methodRoute(agentOrOperator("dead-letter.purge"), {
    method: "dead-letter.purge",
    params: pathAndQuery,
    inGateOf: "agentDid",
  }),
);

app.post(
  "/pair/start",
  methodRoute(pairing("pair.start"), {
    method: "pair.start",
    params: bodyParams("PROXY_PAIR_INVALID_BODY"),
    shown: shownTicket,
  }),
);
app.post(
  "/pair/confirm",
  methodRoute(pairing("pair.confirm"), {
    method: "pair.confirm",
    params: bodyParams("PROXY_PAIR_INVALID_BODY"),
    status: 201,
  }),
);
app.post(
  "/pair/status",
  methodRoute(pairing("pair.status"), { method: "pair.status", params: bodyParams("PROXY_PAIR_INVALID_BODY") }),
);
app.post(
  "/pair/remove",
  methodRoute(pairing("pair.remove"), { method: "pair.remove", params: bodyParams("PROXY_PAIR_INVALID_BODY") }),
);
app.get("/pair/peers", methodRoute(pairing("pair.peers"), { method: "pair.peers", params: queryParams }));

app.post(
  "/v1/agents",
  methodRoute(operatorOnly("identity.register"), { method: "identity.register", params: bodyParams(), status: 201 }),
);
app.get("/v1/agents", methodRoute(operatorOnly("identity.list"), { method: "identity.list", params: queryParams }));
app.get(
  "/v1/agents/profile",
  methodRoute(agentOrOperator("agent.profile"), { method: "agent.profile", params: queryParams }),
);
app.post(
  "/v1/agents/revoke",
  methodRoute(operatorOnly("identity.revoke"), {
    method: "identity.revoke",
    params: bodyParams(),
    inGateOf: "agentDid",
  }),
);
app.post(
  "/v1/agents/rekey",
  methodRoute(operatorOnly("identity.rekey"), { method: "identity.rekey", params: bodyParams(), inGateOf: "agentDid" }),
);
app.post("/v1/agents/enroll", enroll);
app.post(
  "/v1/invites",
  methodRoute(operatorOnly("invite.create"), {
    method: "invite.create",
    params: bodyParams(),
    status: 201,
    // The invite stands in the fragment: no server that the link passes receives it.
    shown: (c, result) => ({ ...result, link: `${new URL("/join", c.req.url).href}#${String(result["invite"])}` }),
  }),
);
app.get("/v1/invites", methodRoute(operatorOnly("invite.list"), { method: "invite.list", params: queryParams }));
app.post(
  "/v1/invites/revoke",
  methodRoute(operatorOnly("invite.revoke"), { method: "invite.revoke", params: bodyParams() }),
);
app.get("/join", join);
app.post(
  "/v1/keys/rotate",
  methodRoute(operatorOnly("identity.keys.rotate"), { method: "identity.keys.rotate", params: noParams }),
);
app.post(
  "/v1/keys/revoke",
  methodRoute(operatorOnly("identity.keys.revoke"), { method: "identity.keys.revoke", params: bodyParams() }),
);
app.post(
  "/v1/agents/auth/refresh",
  methodRoute(agentWithoutAccess("identity.refresh"), { method: "identity.refresh", params: bodyParams() }),
);
app.post(
  "/v1/agents/reissue",
  methodRoute(agentWithoutAccess("identity.reissue"), { method: "identity.reissue", params: noParams }),
);
app.get(
  KEYS_PATH,
  embeddedOnly((c) => keysResponse(source(c))),
);
app.get(
  CRL_PATH,
  embeddedOnly((c) => crlResponse(source(c))),
);
app.post(
  ACCESS_VALIDATE_PATH,
  embeddedOnly((c) => accessValidationResponse(source(c), c.req.raw)),
);

app.get("/v1/time", time);
app.get("/health", health);
app.get("/ready", ready);
app.get("/metrics", metrics(operatorOnly("metrics")));
app.get(
  "/openapi.json",
  openapi(() => app.routes),
);

app.notFound(() => {
  throw new ProxyError("PROXY_NOT_FOUND");
});

/** What is out of bounds is refused by the method; until then nothing waits for it. */
function waitMsOf(seconds: string | undefined): number {
  return /^\d{1,2}$/.test(seconds ?? "") ? Number(seconds) * 1_000 : 0;
}

function source(c: Context<HttpEnv>) {
  return { db: c.env.DB, config: c.get("runtime").config, now: Date.now };
}

/** The documents of §1 are served only while this Worker is the registry. */
function embeddedOnly(handler: (c: Context<HttpEnv>) => Promise<Response>) {
  return (c: Context<HttpEnv>): Promise<Response> => {
    if (c.get("runtime").config.registryUrl !== "embedded") throw new ProxyError("PROXY_NOT_FOUND");
    return handler(c);
  };
}
