/** JSON that nests very deep: refused for good where it is a method's, passed on byte for byte where it is a message's. */
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, describe, expect, type MockInstance, test, vi } from "vitest";
import { newUlid } from "../../src/wire/ulid.ts";
import { eventually } from "../support/gate.ts";
import {
  type Agent,
  apiKeyOf,
  authorization,
  type Caller,
  createTask,
  fetchWorker,
  operator,
  register,
  rpc,
} from "../support/world.ts";

const DEPTHS = [129, 1_001, 5_000, 100_000];
/** So many objects, one in the other. */
const nested = (levels: number): string => `${'{"a":'.repeat(levels - 1)}{}${"}".repeat(levels - 1)}`;
const nestedArrays = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);

let alice: Agent;
let bob: Agent;
beforeAll(async () => {
  [alice, bob] = [await register(), await register()];
  const [low, high] = [alice.did, bob.did].toSorted();
  await env.DB.prepare(
    "INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms) VALUES (?1, ?2, 1, '{}', '{}', ?3)",
  )
    .bind(low, high, Date.now())
    .run();
});

let errors: MockInstance;
beforeEach(() => {
  errors = vi.spyOn(console, "error");
});
afterEach(() => {
  expect(errors.mock.calls, "nothing of it is an error of the proxy's").toEqual([]);
  errors.mockRestore();
});

async function post(
  caller: Caller,
  path: string,
  body: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: unknown }> {
  const signed = await authorization(caller, body, { method: "POST", path });
  const request = new Request(`https://proxy.example${path}`, {
    method: "POST",
    body,
    headers: { ...signed, ...headers },
  });
  const answer = await fetchWorker(request);
  const text = await answer.text();
  return { status: answer.status, body: text === "" ? null : JSON.parse(text) };
}

const callText = (id: number | null, params: string, method = "task/create"): string =>
  `{"jsonrpc":"2.0",${id === null ? "" : `"id":${id},`}"method":"${method}","params":${params}}`;

const REFUSED = { error: { code: -32602, data: { code: "PROXY_BAD_REQUEST" } } };

describe("a method's parameters", () => {
  test.each(DEPTHS)("%d levels deep are refused for good, whoever calls", async (levels) => {
    const params = `{"agentDid":"${alice.did}","params":${nested(levels - 1)}}`;
    for (const caller of [alice, operator, await apiKeyOf(alice, ["tasks:write"])]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const { status, body } = await post(caller, "/rpc", callText(7, params));
      expect(status, caller.kind).toBe(200);
      expect(body, caller.kind).toMatchObject({ id: 7, ...REFUSED });
      expect(JSON.stringify(body), caller.kind).not.toContain("retryable");
    }
  });

  test("128 levels deep are taken, and come back as they were", async () => {
    // The parameters themselves are the first level.
    const deep = JSON.parse(nested(127)) as unknown;
    const task = await createTask(alice, { agentDid: alice.did, params: deep, metadata: deep });
    const got = await rpc(alice, "task/get", { taskId: task.taskId });
    expect(got.result?.["task"]).toMatchObject({ params: deep, metadata: deep });
  });

  test("that nest too deep are one call's own: the rest of the batch is done, and a notification has no answer", async () => {
    const batch = [
      callText(1, "{}", "device.pair.list"),
      callText(2, nested(5_000)),
      callText(null, nestedArrays(5_000)),
      callText(3, nestedArrays(5_000), "no/such/method"),
      callText(4, "{}", "device.pair.list"),
    ];
    const { status, body } = await post(alice, "/rpc", `[${batch.join(",")}]`);
    expect(status).toBe(200);
    expect(body).toMatchObject([
      { id: 1, result: { pending: [] } },
      { id: 2, ...REFUSED },
      { id: 3, ...REFUSED },
      { id: 4, result: { pending: [] } },
    ]);
    expect(await post(alice, "/rpc", callText(null, nested(5_000)))).toEqual({ status: 204, body: null });
  });

  test.each(DEPTHS)("%d levels deep are refused on the relay too, and the socket goes on", async (levels) => {
    const headers = await authorization(alice, "", { method: "GET", path: "/relay/connect" });
    const request = new Request("https://proxy.example/relay/connect", {
      headers: { ...headers, Upgrade: "websocket" },
    });
    const { webSocket: socket } = await fetchWorker(request);
    const frames: unknown[] = [];
    socket?.accept();
    socket?.addEventListener("message", ({ data }) => void frames.push(JSON.parse(String(data))));
    const params = `{"agentDid":"${alice.did}","params":${nested(levels - 1)}}`;
    socket?.send(`{"type":"req","id":1,"method":"task/create","params":${params}}`);
    socket?.send('{"type":"req","id":2,"method":"device.pair.list"}');
    await eventually(() => expect(frames).toHaveLength(2));
    expect(frames).toMatchObject([
      { type: "res", id: 1, ok: false, error: { code: "PROXY_BAD_REQUEST", retryable: false } },
      { type: "res", id: 2, ok: true },
    ]);
    socket?.close(1_000);
  });
});

describe("a route's body", () => {
  test.each(DEPTHS)("%d levels deep is refused for good, with the route's own code", async (levels) => {
    const body = nested(levels);
    expect(await post(alice, "/pair/start", body)).toMatchObject({
      status: 400,
      body: { code: "PROXY_PAIR_INVALID_BODY" },
    });
    expect(await post(operator, "/v1/agents", body)).toMatchObject({
      status: 400,
      body: { code: "PROXY_BAD_REQUEST" },
    });
  });
});

describe("a message", () => {
  /** As deep as 1 MiB can be, nearly. */
  const DEEPEST = 500_000;

  test.each([...DEPTHS, DEEPEST])(
    "%d levels deep is delivered byte for byte, by whichever way it came",
    async (levels) => {
      const payload = nestedArrays(levels);
      const headers = await authorization(bob, "", { method: "GET", path: "/relay/connect" });
      const listening = await fetchWorker(
        new Request("https://proxy.example/relay/connect", { headers: { ...headers, Upgrade: "websocket" } }),
      );
      const texts: string[] = [];
      listening.webSocket?.accept();
      listening.webSocket?.addEventListener("message", ({ data }) => {
        texts.push(String(data));
        const { type, id } = JSON.parse(String(data)) as { type: string; id: string };
        const head = { v: 1, id: newUlid(Date.now()), ts: new Date().toISOString() };
        if (type === "deliver") {
          listening.webSocket?.send(JSON.stringify({ ...head, type: "deliver_ack", ackId: id, accepted: true }));
        }
      });

      const hook = await post(alice, "/hooks/agent", payload, { "X-Claw-Recipient-Agent-Did": bob.did });
      expect(hook).toMatchObject({ status: 202, body: { accepted: true } });

      const own = await authorization(alice, "", { method: "GET", path: "/relay/connect" });
      const sending = await fetchWorker(
        new Request("https://proxy.example/relay/connect", { headers: { ...own, Upgrade: "websocket" } }),
      );
      const acknowledged: unknown[] = [];
      sending.webSocket?.accept();
      sending.webSocket?.addEventListener("message", ({ data }) => {
        const frame = JSON.parse(String(data)) as { type: string };
        if (frame.type === "enqueue_ack") acknowledged.push(frame);
      });
      const head = `"v":1,"id":"${newUlid(Date.now())}","ts":"${new Date().toISOString()}"`;
      sending.webSocket?.send(`{${head},"type":"enqueue","toAgentDid":"${bob.did}","payload":${payload}}`);
      await eventually(() => expect(acknowledged).toMatchObject([{ accepted: true }]));

      await eventually(() => expect(texts).toHaveLength(2));
      for (const text of texts) expect(text.endsWith(`"payload":${payload}}`)).toBe(true);
      listening.webSocket?.close(1_000);
      sending.webSocket?.close(1_000);
    },
  );
});
