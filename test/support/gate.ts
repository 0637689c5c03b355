/** Agents that send and listen through real gates, and rooms of a gate on real storage. The clock is the test's. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { vi } from "vitest";
import type { Gate } from "../../src/gate/gate.ts";
import type { GateAnswer } from "../../src/gate/protocol/calls.ts";
import type { AgentAdmission, Submission, SubmissionReply } from "../../src/gate/protocol/submission.ts";
import type { QueuedMessage } from "../../src/gate/protocol/transfer.ts";
import { type Upgrade, UPGRADE_HEADER } from "../../src/gate/protocol/upgrade.ts";
import { migrate } from "../../src/gate/storage/schema.ts";
import { type AgentDid, newDid } from "../../src/wire/did.ts";
import { newUlid } from "../../src/wire/ulid.ts";

const AUTHORITY = "registry.sallyport.example";
/** In the future of the real clock: an alarm goes off only when a test says so. */
export const START_MS = Date.UTC(2040, 0, 1, 12);

/** Stands the clock still; timers stay real, so that groups commit and gates talk. Alarms are run by hand. */
export function stopClock(atMs: number = START_MS): void {
  vi.useFakeTimers({ toFake: ["Date"], now: atMs });
}

export function pass(ms: number): void {
  vi.setSystemTime(Date.now() + ms);
}

export const newAgentDid = (): AgentDid => newDid(AUTHORITY, "agent", newUlid(START_MS));

export function gateStub(did: AgentDid): DurableObjectStub<Gate> {
  return env.GATE.getByName(did);
}

/**
 * The gate crashes: nothing in its memory outlives it. The message begins with the words of the test runner's own disposal
 * of an object, because workerd writes every other crash to the console, past the reporter.
 *
 * @throws {Error} where the gate did not crash
 */
export async function crashGate(did: AgentDid): Promise<void> {
  const hasCrashed = await runInDurableObject(gateStub(did), (_gate, state) =>
    state.abort("Instance dispose: a crash on purpose"),
  ).then(
    () => false,
    () => true,
  );
  if (!hasCrashed) throw new Error("the gate goes on");
}

export function admissionOf(did: AgentDid, over: Partial<AgentAdmission> = {}): AgentAdmission {
  return {
    principal: {
      kind: "agent",
      agentDid: did,
      ownerDid: newDid(AUTHORITY, "human", newUlid(START_MS)),
      jti: newUlid(START_MS),
      expMs: START_MS + 30 * 86_400_000,
      keyX: `key-of-${did.slice(-26)}`,
    },
    nonce: crypto.randomUUID(),
    timestampSeconds: Math.floor(Date.now() / 1_000),
    ...over,
  };
}

export type SendOptions = Partial<Omit<Submission, "admission">> & { admission?: Partial<AgentAdmission> };

/** Hands a message in as the hook does, after the chain. */
export async function send(
  from: AgentDid,
  to: AgentDid,
  payload: unknown,
  options: SendOptions = {},
): Promise<SubmissionReply> {
  const body = JSON.stringify(payload);
  const { admission, ...rest } = options;
  const submission: Submission = {
    admission: admissionOf(from, admission),
    to,
    trustEpoch: 1,
    bytes: body.length,
    ...rest,
  };
  return JSON.parse(await gateStub(from).submit(JSON.stringify(submission), body)) as SubmissionReply;
}

export async function sent(from: AgentDid, to: AgentDid, payload: unknown, options: SendOptions = {}): Promise<string> {
  const reply = await send(from, to, payload, options);
  if (!reply.ok) throw new Error(`refused: ${reply.refusal.reason}`);
  return reply.deliveryId;
}

/** Calls a method in the agent's own gate, as its route does. */
export async function call(
  did: AgentDid,
  method: string,
  params: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const caller = { kind: "agent" as const, admission: admissionOf(did) };
  const answer = (await gateStub(did).call({
    caller,
    surface: "http",
    requestId: "test-request",
    origin: null,
    bookmark: null,
    calls: [{ method, params }],
  })) as GateAnswer;
  if (!answer.ok) throw new Error(`refused: ${answer.refusal.reason}`);
  const [reply] = answer.replies;
  if (reply === undefined) throw new Error("no reply");
  return reply.ok ? (JSON.parse(reply.resultText) as Record<string, unknown>) : { code: reply.code };
}

/** Rows of a gate's table; looking wakes the gate and changes nothing. */
export function rows(did: AgentDid, query: string, ...bindings: unknown[]): Promise<Record<string, SqlStorageValue>[]> {
  return runInDurableObject(gateStub(did), (_gate, { storage }) => storage.sql.exec(query, ...bindings).toArray());
}

export const alarmOf = (did: AgentDid): Promise<number | null> =>
  runInDurableObject(gateStub(did), (_gate, { storage }) => storage.getAlarm());

export type Frame = Record<string, unknown> & { type: string; id: string };

export type Listener = {
  socket: WebSocket;
  frames: Frame[];
  /** The same as they came. */
  texts: string[];
  deliveries(): Frame[];
  receipts(): Frame[];
  closed: Promise<{ code: number; reason: string }>;
  say(frame: Record<string, unknown>): void;
  acknowledge(frame: Frame, accepted?: boolean, reason?: string): void;
};

/** A socket of the agent's own credential. @param answer what is done with each delivery as it comes */
export async function listen(
  did: AgentDid,
  answer: "acknowledge" | "refuse" | "nothing" = "acknowledge",
): Promise<Listener> {
  const upgrade: Upgrade = {
    requestId: "test-request",
    origin: null,
    caller: { kind: "agent", admission: admissionOf(did) },
    protocol: "sallyport.v1",
  };
  const response = await gateStub(did).fetch("https://gate/relay", {
    headers: { Upgrade: "websocket", [UPGRADE_HEADER]: JSON.stringify(upgrade) },
  });
  const socket = response.webSocket;
  if (socket === null) throw new Error(`no socket: ${response.status} ${await response.text()}`);
  socket.accept();
  const frames: Frame[] = [];
  const texts: string[] = [];
  const listener: Listener = {
    socket,
    frames,
    texts,
    deliveries: () => frames.filter(({ type }) => type === "deliver"),
    receipts: () => frames.filter(({ type }) => type === "receipt"),
    closed: new Promise((resolve) => socket.addEventListener("close", ({ code, reason }) => resolve({ code, reason }))),
    say: (frame) =>
      socket.send(JSON.stringify({ v: 1, id: newUlid(Date.now()), ts: new Date(Date.now()).toISOString(), ...frame })),
    acknowledge(frame, accepted = true, reason) {
      listener.say({ type: "deliver_ack", ackId: frame.id, accepted, ...(reason === undefined ? {} : { reason }) });
    },
  };
  socket.addEventListener("message", ({ data }) => {
    const frame = JSON.parse(String(data)) as Frame;
    texts.push(String(data));
    frames.push(frame);
    if (frame.type !== "deliver" || answer === "nothing") return;
    listener.acknowledge(frame, answer === "acknowledge", answer === "refuse" ? "not today" : undefined);
  });
  return listener;
}

/** Ten milliseconds apart: a passing test does not wait for them, however busy the machine. */
const EVENTUALLY_TRIES = 3_000;

/** Waits for what real timers and other gates bring about, without moving the clock; what never comes fails the test. */
export async function eventually<T>(look: () => T | Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- one look after the other
      return await look();
    } catch (error) {
      if (tries >= EVENTUALLY_TRIES) throw error;
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

let objects = 0;

/** Rooms of a gate on the storage of an object that nothing else uses. */
export function onStorage<T>(work: (sql: SqlStorage, storage: DurableObjectStorage) => T | Promise<T>): Promise<T> {
  return runInDurableObject(
    env.GATE.getByName(`storage-${(objects += 1)}-${crypto.randomUUID()}`),
    (_gate, { storage }) => {
      migrate(storage);
      return work(storage.sql, storage);
    },
  );
}

let queuedMessages = 0;

export function queuedMessage(over: Partial<QueuedMessage> = {}): QueuedMessage {
  queuedMessages += 1;
  const body = JSON.stringify({ n: queuedMessages });
  return {
    deliveryId: `01K${String(queuedMessages).padStart(23, "0")}`,
    createdAtMs: START_MS,
    bytes: body.length,
    envelope: JSON.stringify({ fromAgentDid: null }),
    body,
    ...over,
  };
}
