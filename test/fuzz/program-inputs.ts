/** The running program, over HTTP and over its socket: whatever is sent, it answers in time, and never that it is broken. */
import { connect } from "node:net";
import * as fc from "fast-check";
import { type Agent, pair, register, request, signedHeaders } from "../e2e/agent.ts";
import { OPERATOR_TOKEN } from "../e2e/proxy.ts";
import { startProgram } from "../faults/program.ts";
import { agentDid, anyJson, anyText, looseJson, mutated, spoiled, ulid } from "./arbitraries.ts";
import { fuzz, must, type Outcome, target } from "./target.ts";

export const PROGRAM = "program";

const MEBIBYTE = 1_048_576;
const GROWTH_MAX_BYTES = 400 * MEBIBYTE;
const PUBLIC = new Set(["/health", "/ready", "/v1/time", "/.well-known/claw-keys.json", "/v1/crl", "/openapi.json"]);
const ROUTES: readonly [method: string, path: string][] = [
  ["POST", "/hooks/agent"],
  ["POST", "/hooks/message"],
  ["GET", "/relay/connect"],
  ["POST", "/v1/relay/tickets"],
  ["POST", "/rpc"],
  ["POST", "/v1/devices/claim"],
  ["GET", "/v1/deliveries/x"],
  ["GET", "/v1/dead-letters"],
  ["POST", "/v1/dead-letters/x/replay"],
  ["DELETE", "/v1/dead-letters/x"],
  ["POST", "/pair/start"],
  ["POST", "/pair/confirm"],
  ["POST", "/pair/status"],
  ["POST", "/pair/remove"],
  ["GET", "/pair/peers"],
  ["POST", "/v1/agents"],
  ["GET", "/v1/agents"],
  ["POST", "/v1/agents/revoke"],
  ["POST", "/v1/agents/rekey"],
  ["POST", "/v1/keys/revoke"],
  ["POST", "/v1/agents/auth/refresh"],
  ["POST", "/v1/agents/auth/validate"],
  ["GET", "/metrics"],
  ["GET", "/health"],
  ["GET", "/admin"],
];
const METHODS = [
  "device.pair.request",
  "device.pair.list",
  "device.pair.approve",
  "device.pair.reject",
  "device.pair.rename",
  "device.token.rotate",
  "device.token.revoke",
  "task/create",
  "task/get",
  "task/list",
  "task/cancel",
  "task/delete",
  "task/share",
  "task/unshare",
  "message/send",
  "event/send",
  "apikey/create",
  "apikey/list",
  "apikey/delete",
  "authz/write",
  "authz/read",
  "authz/check",
  "authz/list_objects",
  "authz/reconcile",
  "trust/list",
  "trust/remove",
  "audit/list",
];
const params = fc.dictionary(
  fc.constantFrom(
    "agentDid",
    "peerAgentDid",
    "taskId",
    "taskName",
    "name",
    "params",
    "metadata",
    "cursor",
    "limit",
    "subject",
    "relation",
    "object",
    "type",
    "writes",
    "deletes",
    "contextualTuples",
    "deviceId",
    "publicKey",
    "scopes",
    "label",
    "requestId",
    "digest",
    "ticket",
    "ttlSeconds",
    "initiatorProfile",
    "responderProfile",
    "allowResponderAgentDid",
    "refreshToken",
    "apiKeyId",
    "expiresAtMs",
    "content",
    "dryRun",
    "kid",
    "framework",
    "ownerDid",
    "tenantId",
    "reason",
    "jti",
    "aitJti",
  ),
  fc.oneof(
    anyJson,
    anyText,
    mutated(agentDid),
    ulid,
    fc.integer(),
    fc.array(fc.record({ object: anyText, relation: anyText, subject: anyText }), { maxLength: 3 }),
    fc.constantFrom("A".repeat(43), "agent:x", "task:1", 2 ** 53, -1, 0),
  ),
  { maxKeys: 6 },
);

type Sent = { method: string; path: string; headers: Record<string, string>; body: string };

export async function fuzzProgram(inputs: number, seed: number): Promise<Outcome[]> {
  const program = await startProgram();
  try {
    const { url, port } = program;
    const agent = await register(url, "fuzzed");
    const peer = await register(url, "peer");
    await pair(url, agent, peer);
    const before = program.residentBytes();

    const ask = async ({ method, path, headers, body }: Sent): Promise<{ status: number; text: string }> => {
      const hasBody = method !== "GET" && method !== "HEAD";
      const response = await fetch(url + path, {
        method,
        headers,
        ...(hasBody ? { body } : {}),
        redirect: "manual",
        signal: AbortSignal.timeout(15_000),
      });
      return { status: response.status, text: await response.text() };
    };
    const judge = ({ status, text }: { status: number; text: string }, what: string): void => {
      must(status !== 500 && status < 504, `${what}: ${status} ${text.slice(0, 200)}`);
      must(
        !text.includes("PROXY_INTERNAL") && !text.includes("-32603") && !/\bat \w+ \(/.test(text),
        `${what}: ${text.slice(0, 300)}`,
      );
    };

    const targets = [
      target<Sent>({
        name: `${PROGRAM}: requests of a stranger`,
        weight: 3,
        arbitrary: fc
          .record({
            route: fc.constantFrom(...ROUTES),
            suffix: fc.oneof(
              { weight: 4, arbitrary: fc.constant("") },
              fc.webQueryParameters().map((query) => `?${query}`),
              fc.constantFrom("/", "/..", "/%00", "/%ff", "//", "?limit=-1"),
            ),
            headers: fc.dictionary(
              fc.constantFrom(
                "Authorization",
                "Content-Type",
                "X-Claw-Agent-Did",
                "X-Claw-Timestamp",
                "X-Claw-Nonce",
                "X-Claw-Proof",
                "X-Claw-Body-SHA256",
                "X-Request-Id",
                "traceparent",
                "Idempotency-Key",
                "Prefer",
                "X-Claw-Recipient-Agent-Did",
              ),
              fc.oneof(
                fc.string({ maxLength: 40 }).map(printable),
                agentDid,
                fc.constantFrom(
                  "Claw a.b.c",
                  "Bearer x",
                  `Bearer spk_${"A".repeat(43)}`,
                  `Shared sps_${"A".repeat(43)}`,
                  `Device spd_${"A".repeat(43)}`,
                  "application/json",
                ),
              ),
            ),
            body: fc.oneof(
              params.map((value) => JSON.stringify(value)),
              anyText,
              fc.constant("{".repeat(2_000)),
            ),
          })
          .map(({ route: [method, path], suffix, headers, body }) => ({ method, path: path + suffix, headers, body })),
        async holds(sent) {
          const answer = await ask(sent);
          judge(answer, `${sent.method} ${sent.path}`);
          must(
            answer.status >= 400 ||
              answer.status === 204 ||
              PUBLIC.has(new URL(sent.path, url).pathname) ||
              sent.path.startsWith("/admin"),
            `a stranger got ${answer.status} from ${sent.path}`,
          );
        },
      }),
      target<{ route: readonly [string, string]; body: string; headers: Record<string, string> }>({
        name: `${PROGRAM}: requests of an agent with hostile bodies and headers`,
        weight: 3,
        arbitrary: fc.record({
          route: fc.constantFrom(...ROUTES.filter(([, path]) => !path.startsWith("/relay") && !path.includes("claim"))),
          body: fc.oneof(
            looseJson(params),
            params.map((value) => JSON.stringify(value)),
            anyText,
          ),
          headers: fc.dictionary(
            fc.constantFrom(
              "X-Claw-Recipient-Agent-Did",
              "X-Claw-Conversation-Id",
              "X-Claw-Delivery-Receipt-Url",
              "Idempotency-Key",
              "Prefer",
              "Content-Type",
              "traceparent",
            ),
            fc.oneof(
              fc.string({ maxLength: 30 }).map(printable),
              fc.constantFrom(peer.did, "wait=99999", "wait=-1", "https://x/", "application/json", "text/plain"),
            ),
          ),
        }),
        async holds({ route: [method, path], body, headers }) {
          const signed = {
            method,
            path,
            body: method === "GET" ? "" : body,
            headers: { "X-Claw-Recipient-Agent-Did": peer.did, ...headers },
          };
          judge(await ask({ method, path, body, headers: signedHeaders(agent, signed) }), `agent ${method} ${path}`);
        },
      }),
      target<{ by: "agent" | "operator"; calls: unknown }>({
        name: `${PROGRAM}: methods with hostile parameters`,
        weight: 5,
        arbitrary: fc.record({
          by: fc.constantFrom("agent" as const, "operator" as const),
          calls: fc.oneof(
            {
              weight: 5,
              arbitrary: fc.record({
                jsonrpc: fc.constant("2.0"),
                id: fc.integer(),
                method: fc.constantFrom(...METHODS),
                params: fc
                  .tuple(params, fc.boolean())
                  .map(([some, own]) => (own ? { ...some, agentDid: agent.did } : some)),
              }) as fc.Arbitrary<unknown>,
            },
            {
              weight: 1,
              arbitrary: fc.array(
                spoiled(
                  fc.record({
                    jsonrpc: fc.constant("2.0"),
                    id: fc.integer(),
                    method: fc.constantFrom(...METHODS),
                    params,
                  }) as fc.Arbitrary<Record<string, unknown>>,
                ),
                { maxLength: 4 },
              ) as fc.Arbitrary<unknown>,
            },
          ),
        }),
        async holds({ by, calls }) {
          const body = JSON.stringify(calls);
          const signed = { method: "POST", path: "/rpc", body };
          const headers =
            by === "agent"
              ? signedHeaders(agent, signed)
              : { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
          judge(await ask({ ...signed, headers }), `${by} ${body.slice(0, 200)}`);
        },
      }),
      target<string[]>({
        name: `${PROGRAM}: frames`,
        weight: 1,
        arbitrary: fc.array(
          fc.oneof(
            looseJson(
              spoiled(
                fc.record({
                  v: fc.constant(1),
                  id: ulid,
                  ts: fc.constant("2026-11-22T12:00:00.000Z"),
                  type: fc.constantFrom("enqueue", "deliver_ack", "heartbeat", "req"),
                  toAgentDid: fc.constant(peer.did),
                  payload: anyJson,
                  ackId: ulid,
                  accepted: fc.boolean(),
                  method: fc.constantFrom(...METHODS),
                  params,
                }) as fc.Arbitrary<Record<string, unknown>>,
              ),
            ),
            anyText,
          ),
          { minLength: 1, maxLength: 8 },
        ),
        async holds(frames) {
          const answers = await overSocket(url, agent, frames);
          for (const text of answers)
            must(!text.includes("PROXY_INTERNAL"), `a frame was answered with ${text.slice(0, 300)}`);
        },
      }),
      target<string>({
        name: `${PROGRAM}: bytes that are hardly HTTP`,
        weight: 1,
        arbitrary: mutated(
          fc.constantFrom(
            "POST /hooks/agent HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /rpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "GET /relay/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sallyport.ticket.x\r\n\r\n",
          ),
        ),
        async holds(bytes) {
          const answer = await raw(port, bytes);
          must(
            !/^HTTP\/1.1 500/.test(answer) || !answer.includes("requestId"),
            `the program said ${answer.slice(0, 200)}`,
          );
        },
      }),
    ];
    const weights = targets.reduce((sum, { weight }) => sum + weight, 0);
    const outcomes: Outcome[] = [];
    for (const one of targets) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      outcomes.push(await fuzz(one, Math.ceil((inputs * one.weight) / weights), seed));
    }
    const health = await ask({ method: "GET", path: "/health", headers: {}, body: "" });
    const grown = program.residentBytes() - before;
    console.log(
      `workerd ${Math.round(program.residentBytes() / MEBIBYTE)} MiB, ${grown < 0 ? "" : "+"}${Math.round(grown / MEBIBYTE)} MiB; alive: ${health.status}`,
    );
    const lives = health.status === 200 && grown < GROWTH_MAX_BYTES;
    if (!lives)
      outcomes.push({
        name: `${PROGRAM}: alive and bounded`,
        inputs: 0,
        slowestMs: 0,
        counterexample: { input: String(health.status), why: `${grown} bytes more` },
      });
    return outcomes;
  } finally {
    await program.stop();
  }
}

/** Only what an HTTP client would put into a header. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "").trim();
}

/** Sends frames over a socket of its own and waits for a heartbeat's answer behind them, or the end of the socket. */
async function overSocket(url: string, agent: Agent, frames: readonly string[]): Promise<string[]> {
  const issued = await request(url, agent, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
  must(issued.status === 200, `no relay ticket: ${issued.status}`);
  const socket = new WebSocket(`${url.replace("http", "ws")}/relay/connect`, [
    `sallyport.ticket.${String(issued.body["ticket"])}`,
  ]);
  const answers: string[] = [];
  const last = "01K0000000000000000000000Z";
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("the socket said nothing for 10 s")), 10_000);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    socket.addEventListener("open", () => {
      for (const frame of frames) socket.send(frame);
      socket.send(JSON.stringify({ v: 1, type: "heartbeat", id: last, ts: "2026-11-22T12:00:00.000Z" }));
    });
    socket.addEventListener("message", ({ data }) => {
      const text = String(data);
      answers.push(text);
      if (text.includes('"heartbeat_ack"') && text.includes(last)) done();
    });
    socket.addEventListener("close", done);
    socket.addEventListener("error", done);
  });
  socket.close();
  return answers;
}

/** Bytes as they are, and what comes back within a moment. */
function raw(port: number, bytes: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let answer = "";
    const end = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    // What is not a whole request waits for its rest; that is right.
    const timer = setTimeout(end, 150);
    socket.on("data", (chunk: Buffer) => (answer += chunk.toString("latin1")));
    socket.on("error", end);
    socket.on("close", end);
    socket.write(bytes, "latin1");
  });
}
