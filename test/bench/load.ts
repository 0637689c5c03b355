/**
 * The load process: agents, their requests and their sockets live here, away from the process that hosts the runtime. It
 * does what it is told over the channel to its parent and answers with figures.
 */
import { type Agent, pair, register, request, OPERATOR_TOKEN } from "../support/program/agents.ts";
import { openHttpConnection } from "./http-connection.ts";
import { connectRecipients, type Recipients } from "./recipients.ts";
import { type RunFigures, type RunPlan, runLoad } from "./run.ts";
import {
  peersOf,
  requestBytes,
  signCalls,
  signGet,
  signGroupSend,
  signSend,
  type SignedSend,
  signSends,
  type Topology,
} from "./traffic.ts";

/** What the parent may ask for; each takes plain data and gives plain data. */
export type LoadCommands = {
  /**
   * Registers agents, with another registry where one is named, pairs them unless somebody else does, and connects the
   * recipients where that is asked for; gives their DIDs.
   */
  prepare(
    scene: Topology & { url: string; connect: boolean; registryUrl?: string; arePaired?: boolean },
  ): Promise<{ senders: string[]; recipients: string[] }>;
  /** Makes requests for the runs that follow. */
  sign(order: { count: number; path?: string; call?: string }): Promise<null>;
  /** Sends what was signed. `deliver` waits for every message to be delivered and acknowledged, `settle` (by default) to be reported too. */
  run(
    plan: RunPlan & { deliver: boolean; settle?: boolean },
  ): Promise<RunFigures & { settledMs: number; unsettled: string[] }>;
  /** The same request again and again: a plain GET, or a JSON-RPC call of the operator's. */
  same(plan: RunPlan & { path: string; body?: string }): Promise<RunFigures>;
  /** Single messages with silence between them. */
  lone(plan: {
    url: string;
    count: number;
    silenceMs: number;
  }): Promise<{ acceptedMs: number[]; pushedAfterMs: number[] }>;
  /** Puts the first sender and all recipients into one group; gives its id. */
  group(plan: { url: string }): Promise<string>;
  /** Sends to all of a group, one after the other, each when all have the one before. */
  fanOut(plan: {
    url: string;
    groupId: string;
    count: number;
  }): Promise<{ acceptedMs: number[]; pushedAfterMs: number[] }>;
};

let senders: Agent[] = [];
let targets: Agent[] = [];
let recipients: Recipients | null = null;
let fan = 1;
let sends: SignedSend[] = [];

/** More than this machine answers. */
const SAME_A_SECOND = 20_000;
const SETTLED_WITHIN_MS = 20_000;
const PUSHED_WITHIN_MS = 5_000;

const commands: LoadCommands = {
  async prepare({ url, connect, registryUrl, arePaired = true, ...topology }) {
    ({ fan } = topology);
    senders = await inTurn(topology.senders, (index) => register(registryUrl ?? url, `sender-${index}`));
    targets = await inTurn(topology.recipients, (index) => register(registryUrl ?? url, `recipient-${index}`));
    for (const [index, sender] of arePaired ? senders.entries() : []) {
      for (const peer of peersOf(index, topology)) {
        const target = targets[peer];
        if (target === undefined) throw new Error("no such recipient");
        // oxlint-disable-next-line no-await-in-loop -- pairing is not what is measured, and not to be a burst
        const answer = await pair(url, sender, target);
        if (answer.status !== 201) throw new Error(`not paired: ${answer.status} ${JSON.stringify(answer.body)}`);
      }
    }
    recipients = connect ? await connectRecipients(url, targets) : null;
    return { senders: senders.map(({ did }) => did), recipients: targets.map(({ did }) => did) };
  },

  async sign({ count, path, call }) {
    sends = call === undefined ? signSends(senders, targets, fan, count, path) : signCalls(senders, call, count);
    return null;
  },

  async run({ deliver, settle = deliver, ...plan }) {
    const figures = await runLoad(plan, sends, deliver ? recipients : null);
    const startedAtMs = performance.now();
    const unsettled = settle ? await settled(plan.url, figures.last) : [];
    return { ...figures, settledMs: performance.now() - startedAtMs, unsettled };
  },

  async same({ path, body, ...plan }) {
    const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
    const bytes = body === undefined ? requestBytes("GET", path, {}, "") : requestBytes("POST", path, headers, body);
    const count = Math.ceil(plan.seconds * SAME_A_SECOND);
    return runLoad(
      plan,
      Array.from({ length: count }, (): SignedSend => ({ sender: 0, recipient: 0, bytes })),
      null,
    );
  },

  async lone({ url, count, silenceMs }) {
    const connection = await openHttpConnection(url);
    const acceptedMs: number[] = [];
    const pushedAfterMs: number[] = [];
    for (let index = 0; index < count; index++) {
      const from = senders[index % senders.length];
      const to = targets[index % targets.length];
      if (from === undefined || to === undefined || recipients === null) throw new Error("nobody is connected");
      const bytes = signSend(from, to.did, { lone: index });
      // oxlint-disable no-await-in-loop -- one message at a time is what is measured
      await new Promise((resolve) => setTimeout(resolve, silenceMs));
      recipients.forget();
      const beganAtMs = performance.now();
      const answer = await connection.send(bytes);
      const acceptedAtMs = performance.now();
      if (answer.status !== 202) throw new Error(`not accepted: ${answer.status} ${answer.body}`);
      if (!(await recipients.until(1, PUSHED_WITHIN_MS))) throw new Error("a lone message was not pushed");
      // oxlint-enable no-await-in-loop
      acceptedMs.push(acceptedAtMs - beganAtMs);
      pushedAfterMs.push(Math.max(0, (recipients.received[0]?.atMs ?? Number.NaN) - acceptedAtMs));
    }
    connection.close();
    return { acceptedMs, pushedAfterMs };
  },

  async group({ url }) {
    const [admin] = senders;
    if (admin === undefined) throw new Error("nobody makes the group");
    const groupId = String((await rpc(url, admin, "group/create", { name: "bench" }))["groupId"]);
    for (const member of targets) {
      // oxlint-disable-next-line no-await-in-loop -- joining is not what is measured, and not to be a burst
      const { token } = await rpc(url, admin, "group/invite", { groupId });
      // oxlint-disable-next-line no-await-in-loop
      await rpc(url, member, "group/join", { token });
    }
    return groupId;
  },

  async fanOut({ url, groupId, count }) {
    const connection = await openHttpConnection(url);
    const acceptedMs: number[] = [];
    const pushedAfterMs: number[] = [];
    const [from] = senders;
    if (from === undefined || recipients === null) throw new Error("nobody is connected");
    for (let index = 0; index < count; index++) {
      const bytes = signGroupSend(from, groupId, { index });
      recipients.forget();
      // oxlint-disable no-await-in-loop -- one after the other is what is measured
      const beganAtMs = performance.now();
      const answer = await connection.send(bytes);
      const acceptedAtMs = performance.now();
      if (answer.status !== 202) throw new Error(`not accepted: ${answer.status} ${answer.body}`);
      if (!(await recipients.until(targets.length, SETTLED_WITHIN_MS))) throw new Error("a member has nothing");
      // oxlint-enable no-await-in-loop
      acceptedMs.push(acceptedAtMs - beganAtMs);
      pushedAfterMs.push((recipients.received.at(-1)?.atMs ?? Number.NaN) - acceptedAtMs);
    }
    connection.close();
    return { acceptedMs, pushedAfterMs };
  },
};

async function rpc(url: string, agent: Agent, method: string, params: object): Promise<Record<string, unknown>> {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  const answer = await request(url, agent, { method: "POST", path: "/rpc", body });
  const { result } = answer.body as { result?: Record<string, unknown> };
  if (result === undefined) throw new Error(`${method}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return result;
}

/** Waits until the sender's own gate has heard of the end of each sender's last message. */
async function settled(url: string, last: RunFigures["last"]): Promise<string[]> {
  const unsettled: string[] = [];
  const connection = await openHttpConnection(url);
  const deadlineMs = performance.now() + SETTLED_WITHIN_MS;
  for (const { sender, deliveryId } of last) {
    for (;;) {
      const from = senders[sender];
      if (from === undefined) throw new Error("no such sender");
      // oxlint-disable no-await-in-loop -- asked until it is so
      const { status, body } = await connection.send(signGet(from, `/v1/deliveries/${deliveryId}`));
      if (body.includes('"delivered"')) break;
      if (performance.now() > deadlineMs) {
        unsettled.push(`${status} ${body}`);
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
      // oxlint-enable no-await-in-loop
    }
  }
  connection.close();
  return unsettled;
}

async function inTurn<T>(count: number, make: (index: number) => Promise<T>): Promise<T[]> {
  const made: T[] = [];
  // oxlint-disable-next-line no-await-in-loop -- one after the other, so that setting up is no burst
  for (let index = 0; index < count; index++) made.push(await make(index));
  return made;
}

export type LoadRequest = { id: number; command: keyof LoadCommands; argument: unknown };
export type LoadReply = { id: number; value?: unknown; error?: string };

process.on("message", (message: LoadRequest) => {
  const run = commands[message.command] as (argument: unknown) => Promise<unknown>;
  run(message.argument).then(
    (value) => process.send?.({ id: message.id, value } satisfies LoadReply),
    (error: unknown) =>
      process.send?.({
        id: message.id,
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      } satisfies LoadReply),
  );
});
