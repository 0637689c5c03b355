/** `POST /rpc`: JSON-RPC 2.0 over HTTP. A failed authentication is a problem document; everything else is a 200. Contract §5. */
import type { Context, Handler } from "hono";
import type { RouteNeeds } from "../../auth/form.ts";
import type { Passed, PassedOperator } from "../../auth/passed.ts";
import type { Reply } from "../../call/reply.ts";
import { underOperator } from "../../operators/lease.ts";
import { refusal } from "../../rpc/dispatcher.ts";
import { answerRpcBody } from "../../rpc/json-rpc.ts";
import { JsonText } from "../../wire/json-text.ts";
import { ProxyError } from "../../wire/problem.ts";
import { apiKeyCallerOf } from "../authenticate-api-key.ts";
import { authenticate, beforeTheHop } from "../authenticate.ts";
import { BOOKMARK_HEADER, readBookmark } from "../bookmark.ts";
import { refuseOtherCharset } from "../content-type.ts";
import { acceptedByGate, callGate, gateCallerOf, namedAgent } from "../gate-client.ts";
import { jsonResponse } from "../json-response.ts";
import type { HttpEnv } from "../middleware/request-context.ts";
import { workerContext } from "../operator-context.ts";
import { memberOf } from "../params.ts";

const NEEDS: RouteNeeds = {
  route: "rpc",
  accepts: ["agent", "device", "shared", "apiKey", "operator"],
  access: true,
  recipient: false,
};

const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** `POST /rpc`, contract §5: a failed authentication is a problem document, everything else JSON-RPC. */
export const rpc: Handler<HttpEnv> = async (c) => {
  const passed = await authenticate(c, NEEDS);
  await beforeTheHop(c, passed, () => refuseOtherCharset(c.req.header("Content-Type")));
  const bookmarks = readBookmark(c);
  // Also where there is nothing to run: who calls is decided before anything is said of the request.
  const response = await answer(c, passed, bookmarks === null ? null : textOf(passed.body));
  if (bookmarks === null)
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: `${BOOKMARK_HEADER} is none that this proxy gave out.` });
  if (bookmarks.latest !== null) c.header(BOOKMARK_HEADER, bookmarks.latest);
  return response === null ? c.body(null, 204) : jsonResponse(c, response);
};

/** What is not UTF-8 is not JSON either. */
function textOf(body: Uint8Array): string {
  try {
    return textDecoder.decode(body);
  } catch (error) {
    if (error instanceof TypeError) return "";
    throw error;
  }
}

/**
 * Runs a body where its caller's authority is: nothing of it is parsed before that caller has been admitted and counted.
 *
 * @param body null where nothing is to be run
 * @returns the text of the response, or null where there is none
 */
async function answer(c: Context<HttpEnv>, passed: Passed, body: string | null): Promise<string | null> {
  if (passed.kind === "operator") {
    acceptedByGate(c, passed);
    if (body === null) return null;
    return answerRpcBody(body, ({ method, params }) => runForOperator(c, passed, method, params));
  }
  const at = await callerOf(c, passed);
  if (at === null) throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
  const what = { caller: at.caller, surface: "rpc" as const, calls: [] };
  const { rpcText } = await callGate(c, passed, at.agentDid, body === null ? what : { ...what, rpcBody: body });
  return rpcText;
}

function callerOf(c: Context<HttpEnv>, passed: Exclude<Passed, { kind: "operator" }>) {
  if (passed.kind === "credential" && passed.credential.kind === "apiKey")
    return apiKeyCallerOf(c, passed, passed.credential.keyHash);
  return gateCallerOf(c, passed);
}

/** The operator is in no gate: what belongs into one names its agent. */
async function runForOperator(
  c: Context<HttpEnv>,
  passed: PassedOperator,
  method: string,
  params: JsonText | undefined,
): Promise<Reply> {
  const { dispatcher } = c.get("runtime");
  const { principal } = passed;
  try {
    if (!dispatcher.runsInGate(method)) {
      return await underOperator(principal, { db: c.env.DB, now: Date.now }, (authority) =>
        dispatcher.dispatch(workerContext(c, principal, authority), "rpc", method, params),
      );
    }
    dispatcher.assertPermitted(method, principal);
    const agentDid = namedAgent(params === undefined ? undefined : memberOf(params, "agentDid"));
    const { replies } = await callGate(c, passed, agentDid, {
      caller: { kind: "operator", principal },
      surface: "rpc",
      calls: [params === undefined ? { method } : { method, paramsText: params.json }],
    });
    const reply = replies[0] ?? refusal(new ProxyError("PROXY_INTERNAL"));
    return reply.ok ? { ok: true, result: new JsonText(reply.resultText) } : reply;
  } catch (error) {
    if (error instanceof ProxyError) return refusal(error);
    throw error;
  }
}
