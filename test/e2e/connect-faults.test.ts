/** A connector whose disk, program or path is broken: each is said in one line, and nothing is lost. Real processes throughout. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase } from "../../src/connect/store/database.ts";
import { openInboxStore } from "../../src/connect/store/inbox.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";
import { delivery } from "../connect/deliveries.ts";
import { connectBob, machine, payloads, program, send, stateOf } from "./connected-bob.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

const linesWith = (said: string, words: string): string[] => said.split("\n").filter((line) => line.includes(words));

test("a disk that is full: said in one line, what came stays with the server, and all comes in order when there is room", async () => {
  const { runner } = await machine(proxy.url);
  let isDown = true;
  const { url, got } = await program((_got, response) => response.writeHead(isDown ? 503 : 200).end());
  // No file of this process grows beyond 256 blocks of 512 bytes; a system that says so by a signal is not to end it.
  const limited = `trap '' XFSZ; ulimit -f 256; exec "$0" "$@"`;
  const first = await connectBob(runner, ["--forward-to", url, "--inbox"], limited);
  const text = "x".repeat(40_000);
  const ids: string[] = [];
  for (const n of [1, 2, 3, 4, 5, 6]) ids.push(await send(runner, JSON.stringify({ n, text })));
  await expect.poll(() => first.said()).toMatch(/inbox: cannot be (?:written|used)/);
  expect(linesWith(first.said(), "inbox: ")).toHaveLength(1);
  expect(await stateOf(runner, ids.at(-1) ?? "")).toBe("queued");
  first.child.kill("SIGKILL");
  await first.ended;
  isDown = false;
  const before = got.length;
  await connectBob(runner, ["--forward-to", url, "--inbox"]);
  await expect
    .poll(() => new Set(payloads(got.slice(before)).map((payload) => (payload as { n: number }).n)).size)
    .toBe(6);
  const order = payloads(got.slice(before)).map((payload) => (payload as { n: number }).n);
  expect([...new Set(order)]).toEqual([1, 2, 3, 4, 5, 6]);
});

test("a program that hangs is given up after its time, in one line, and gets the message again", async () => {
  const { runner } = await machine(proxy.url);
  let hangs = true;
  const { url, got } = await program((_got, response) => void (hangs || response.writeHead(200).end()));
  const { said } = await connectBob(runner, ["--forward-to", url, "--timeout", "1"]);
  const id = await send(runner, "1");
  await expect.poll(() => said()).toContain("program: no answer within 1000 ms");
  hangs = false;
  await expect.poll(() => stateOf(runner, id)).toMatch(/delivered|handled/);
  expect(linesWith(said(), "no answer within")).toHaveLength(1);
  expect(new Set(got.map(({ headers }) => headers["sallyport-delivery-id"]))).toEqual(new Set([id]));
});

test("429 with Retry-After is waited for, and said in one line", async () => {
  const { runner } = await machine(proxy.url);
  const at: number[] = [];
  const { url } = await program((_got, response, count) => {
    at.push(performance.now());
    response.writeHead(count === 1 ? 429 : 200, { "Retry-After": "2" }).end();
  });
  const { said } = await connectBob(runner, ["--forward-to", url]);
  const id = await send(runner, "1");
  await expect.poll(() => stateOf(runner, id)).toMatch(/delivered|handled/);
  expect((at[1] ?? 0) - (at[0] ?? 0)).toBeGreaterThanOrEqual(1_900);
  expect(linesWith(said(), "program: answered 429")).toHaveLength(1);
});

test("a redirect is refused, in one line: whoever answers does not choose where messages go", async () => {
  const { runner } = await machine(proxy.url);
  const elsewhere = await program((_got, response) => response.writeHead(200).end());
  const { url } = await program((_got, response) => response.writeHead(307, { Location: elsewhere.url }).end());
  const { said } = await connectBob(runner, ["--forward-to", url]);
  const id = await send(runner, "1");
  await expect.poll(() => said()).toContain("answered 307: redirects are not followed");
  expect(linesWith(said(), "redirects are not followed")).toHaveLength(1);
  expect(elsewhere.got).toEqual([]);
  expect(await stateOf(runner, id)).toBe("queued");
});

test.each([["--forward-to"], ["--forward-to", "--inbox"]])("a body of 1 MiB comes whole: %s %s", async (...flags) => {
  const { runner } = await machine(proxy.url);
  const { url, got } = await program((_got, response) => response.writeHead(200).end());
  await connectBob(runner, ["--forward-to", url, ...flags.filter((flag) => flag === "--inbox")]);
  const payload = JSON.stringify("ä".repeat((1_048_576 - 2) / 2));
  expect(Buffer.byteLength(payload)).toBe(1_048_576);
  const { deliveryId } = (await runner.json(["send", "bob", "--file", "-", "--agent", "alice"], payload)) as {
    deliveryId: string;
  };
  await expect.poll(() => stateOf(runner, deliveryId)).toMatch(/delivered|handled/);
  await expect.poll(() => got.length).toBe(1);
  expect(got[0]?.body).toContain(`"payload":${payload}`);
});

test("10,000 messages that wait: the next stays with the server, said in one line, and comes when there is room", async () => {
  const { runner } = await machine(proxy.url);
  const { child, ended } = await connectBob(runner, ["--inbox"]);
  child.kill("SIGTERM");
  await ended;
  fillInbox(join(runner.home, "connect/bob/inbox.sqlite"));
  let isDown = true;
  const { url, got } = await program((_got, response) => response.writeHead(isDown ? 503 : 200).end());
  const { said } = await connectBob(runner, ["--forward-to", url, "--inbox"]);
  const id = await send(runner, '"one too many"');
  await expect.poll(() => said()).toContain("inbox: is full: messages stay with the server");
  expect(linesWith(said(), "is full")).toHaveLength(1);
  expect(await stateOf(runner, id)).toBe("queued");
  isDown = false;
  await expect.poll(() => got.some(({ body }) => body.includes("one too many")), { interval: 500 }).toBe(true);
  // Beside the 10,000, which are another sender's; those come in their order, the first again until it was taken.
  const others = payloads(got).filter((payload, at, all) => payload !== "one too many" && payload !== all[at - 1]);
  expect(others.length).toBeGreaterThan(0);
  expect(others).toEqual(Array.from(others, (_, n) => n));
});

/** As if 10,000 messages of one sender had come: one as the connector keeps it, and its like in one commit. */
function fillInbox(path: string): void {
  const inbox = openInboxStore(path);
  expect(inbox.put(delivery({ payloadText: "0" }))).toBe("kept");
  const database = openDatabase(path);
  database.exec(`WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 9999)
    INSERT INTO inbox (delivery_id, sender, bytes, received_at_ms, updated_at_ms, due_at_ms, message, payload)
    SELECT 'd' || n, sender, bytes, received_at_ms, updated_at_ms, due_at_ms, json_set(message, '$.deliveryId', 'd' || n), n
    FROM number, (SELECT * FROM inbox LIMIT 1)`);
  database.close();
  expect(inbox.usage().messages).toBe(10_000);
  expect(inbox.put(delivery())).toBe("full");
  inbox.close();
}
