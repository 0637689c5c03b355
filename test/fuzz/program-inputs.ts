/** The running program, over HTTP and over its socket: whatever is sent, it answers in time, and never that it is broken. */
import { connect } from "node:net";
import * as fc from "fast-check";
import { type Agent, request, signedHeaders } from "../support/program/agents.ts";
import { startProgram } from "../support/program/program.ts";
import { agentDid, anyJson, anyText, looseJson, mutated, spoiled, ulid } from "./arbitraries.ts";
import { callOf, settle } from "./program-callers.ts";
import { type Sent, signedTargets } from "./program-signed.ts";
import { METHODS, params, PUBLIC, ROUTES } from "./surface.ts";
import { fuzz, must, type Outcome, type Target, target } from "./target.ts";

export const PROGRAM = "program";

const MEBIBYTE = 1_048_576;
const GROWTH_MAX_BYTES = 400 * MEBIBYTE;
export async function fuzzProgram(inputs: number, seed: number): Promise<Outcome[]> {
  // Nobody reads what is sent here, and a full outbox would be what is refused.
  const program = await startProgram({ settings: { RELAY_OUTBOX_MAX: "10000" } });
  try {
    const { url, port } = program;
    const callers = await settle(url);
    const { agent, peer } = callers;
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
      // The description of the whole surface names every code.
      const said = text.startsWith('{"openapi":') ? "" : text;
      must(
        !said.includes("PROXY_INTERNAL") && !said.includes("-32603") && !/\bat \w+ \(/.test(said),
        `${what}: ${text.slice(0, 300)}`,
      );
    };

    const targets: Target[] = [
      target<Sent>({
        name: `${PROGRAM}: requests of a stranger`,
        weight: 3,
        // What stands open to anybody.
        acceptedAtLeast: 0.02,
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
          return answer.status < 400;
        },
      }),
      target<{ route: readonly [string, string]; body: string; headers: Record<string, string> }>({
        name: `${PROGRAM}: requests of an agent with hostile bodies and headers`,
        weight: 3,
        acceptedAtLeast: 0.02,
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
          const answer = await ask({ method, path, body, headers: signedHeaders(agent, signed) });
          judge(answer, `agent ${method} ${path}`);
          return answer.status < 400;
        },
      }),
      target<{ by: string; calls: unknown }>({
        name: `${PROGRAM}: methods with hostile parameters`,
        weight: 5,
        acceptedAtLeast: 0.1,
        arbitrary: fc.record({
          by: fc.constantFrom(...Object.keys(callers.headersOf)),
          calls: fc.oneof(
            { weight: 4, arbitrary: callOf(callers) as fc.Arbitrary<unknown> },
            {
              weight: 2,
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
              arbitrary: fc.array(spoiled(callOf(callers)), { maxLength: 4 }) as fc.Arbitrary<unknown>,
            },
          ),
        }),
        async holds({ by, calls }) {
          const body = JSON.stringify(calls);
          const signed = { method: "POST", path: "/rpc", body };
          const answer = await ask({ ...signed, headers: callers.headersOf[by]?.(signed) ?? {} });
          judge(answer, `${by} ${body.slice(0, 200)}`);
          must(answer.status !== 401, `${by} is no longer let in: ${answer.text.slice(0, 200)} ${body.slice(0, 300)}`);
          return answer.text.includes('"result":');
        },
      }),
      target<string[]>({
        name: `${PROGRAM}: frames`,
        weight: 1,
        acceptedAtLeast: 0.1,
        arbitrary: fc.array(
          fc.oneof(
            { weight: 3, arbitrary: rightFrame(peer.did).map((frame) => JSON.stringify(frame)) },
            { weight: 3, arbitrary: looseJson(spoiled(rightFrame(peer.did))) },
            { weight: 1, arbitrary: mutated(rightFrame(peer.did).map((frame) => JSON.stringify(frame))) },
            { weight: 1, arbitrary: anyText },
          ),
          { minLength: 1, maxLength: 8 },
        ),
        async holds(frames) {
          const answers = await overSocket(url, agent, frames);
          for (const text of answers)
            must(!text.includes("PROXY_INTERNAL"), `a frame was answered with ${text.slice(0, 300)}`);
          return answers.some((text) => text.includes('"accepted":true') || text.includes('"ok":true'));
        },
      }),
      target<string>({
        name: `${PROGRAM}: bytes that are hardly HTTP`,
        weight: 1,
        acceptedAtLeast: 0.02,
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
          return /^HTTP\/1\.1 [12]/.test(answer);
        },
      }),
      ...signedTargets({ url, callers, ask, raw: (bytes) => raw(port, bytes) }),
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
        accepted: 0,
        slowestMs: 0,
        counterexample: { input: String(health.status), why: `${grown} bytes more` },
      });
    return outcomes;
  } finally {
    await program.stop();
  }
}

/** A frame that a client may send. */
function rightFrame(to: string): fc.Arbitrary<Record<string, unknown>> {
  const head = { v: fc.constant(1), id: ulid, ts: fc.constant("2026-11-22T12:00:00.000Z") };
  return fc.oneof(
    fc.record({ ...head, type: fc.constant("enqueue"), toAgentDid: fc.constant(to), payload: anyJson }),
    fc.record({ ...head, type: fc.constant("deliver_ack"), ackId: ulid, accepted: fc.boolean() }),
    fc.record({ ...head, type: fc.constant("heartbeat") }),
    fc.record({
      type: fc.constant("req"),
      id: ulid,
      method: fc.oneof(fc.constantFrom("task/list", "device.pair.list"), fc.constantFrom(...METHODS)),
      params: fc.oneof(fc.constant({}), params),
    }),
  );
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
    "sallyport.v1",
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
