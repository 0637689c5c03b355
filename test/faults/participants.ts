/** Who lives in a run: senders and recipients that are paired, and the one way in which everything is asked. */
import {
  type Agent,
  type Answer,
  hookOf,
  operator,
  pair,
  register,
  send,
  type Signed,
  signedHeaders,
} from "../support/program/agents.ts";
import type { History, Outcome } from "./history.ts";
import type { Program } from "../support/program/program.ts";
import type { Random } from "./random.ts";

const ANSWER_WITHIN_MS = 20_000;

export type Asked = { outcome: Outcome; body: Record<string, unknown>; begunAtMs: number; atMs: number };

export type Run = {
  readonly program: Program;
  readonly history: History;
  readonly random: Random;
  readonly senders: readonly Agent[];
  readonly recipients: readonly Agent[];
  /** Everybody who ever sent, by DID. */
  readonly known: Map<string, Agent>;
  /** How often each status was answered. */
  readonly answers: Map<Outcome, number>;
  /** Where new agents come from; the program itself while its registry is the embedded one. */
  readonly registryUrl: string;
  /** Runs a request, and writes down when the program is broken or silent. */
  ask(what: string, request: () => Promise<Answer>): Promise<Asked>;
};

export const hasWorked = ({ outcome }: Pick<Asked, "outcome">): boolean =>
  outcome !== "unknown" && outcome >= 200 && outcome < 300;

export async function settle(
  program: Program,
  history: History,
  random: Random,
  { pairs, registryUrl = program.url }: { pairs: number; registryUrl?: string },
): Promise<Run> {
  const senders: Agent[] = [];
  const recipients: Agent[] = [];
  for (let index = 0; index < pairs; index++) {
    // oxlint-disable-next-line no-await-in-loop -- setting up is no burst
    senders.push(await register(registryUrl, `sender-${index}`));
    // oxlint-disable-next-line no-await-in-loop
    recipients.push(await register(registryUrl, `recipient-${index}`));
  }
  for (const [index, sender] of senders.entries()) {
    for (const recipient of [recipients[index], recipients[(index + 1) % pairs]]) {
      if (recipient === undefined) continue;
      // oxlint-disable-next-line no-await-in-loop
      const paired = await pair(program.url, sender, recipient);
      if (paired.status !== 201) throw new Error(`not paired: ${paired.status} ${JSON.stringify(paired.body)}`);
    }
  }
  history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });

  const answers = new Map<Outcome, number>();
  const answered = (outcome: Outcome): void => void answers.set(outcome, (answers.get(outcome) ?? 0) + 1);
  const ask: Run["ask"] = async (what, request) => {
    const begunAtMs = performance.now();
    const bootBefore = program.boots();
    try {
      const { status, body } = await within(request(), ANSWER_WITHIN_MS);
      const atMs = performance.now();
      answered(status);
      const rpcCode = (body["error"] as { data?: { code?: string } } | undefined)?.data?.code;
      if (status === 500 || rpcCode === "PROXY_INTERNAL")
        history.record({ kind: "fault", atMs, what, status: 500, detail: JSON.stringify(body).slice(0, 300) });
      return { outcome: status, body, begunAtMs, atMs };
    } catch (error) {
      const atMs = performance.now();
      // Silence is a fault only of a program that was there all the time.
      if (error instanceof SyntaxError)
        history.record({
          kind: "fault",
          atMs,
          what,
          status: 500,
          detail: `an answer that is no JSON: ${error.message}`,
        });
      else if (program.isUp() && program.boots() === bootBefore) {
        if (error instanceof Silence) history.record({ kind: "hang", atMs, what, tookMs: atMs - begunAtMs });
        else history.record({ kind: "cut", atMs, what, detail: causeOf(error) });
      }
      answered("unknown");
      return { outcome: "unknown", body: {}, begunAtMs, atMs };
    }
  };
  const known = new Map([...senders, ...recipients].map((agent) => [agent.did, agent]));
  return { program, history, random, senders, recipients, known, answers, registryUrl, ask };
}

/** How often each status was answered, in a line. */
export const told = ({ answers }: Run): string =>
  [...answers]
    .toSorted(([, one], [, other]) => other - one)
    .map(([outcome, times]) => `${outcome} × ${times}`)
    .join(", ");

function causeOf(error: unknown): string {
  const { cause } = error as { cause?: { code?: string; message?: string } };
  return `${String(error)} ${cause?.code ?? cause?.message ?? ""}`;
}

/** A message, signed once; it can be sent as it is again and again. */
export type SignedMessage = {
  key: string;
  from: Agent;
  to: Agent;
  signed: Signed;
  headers: Record<string, string>;
  /** The credential, where the run may end it. */
  authority?: string;
};

export type MessageOptions = {
  /** Seconds since 1970 by the sender's clock. */
  timestamp?: number;
  /** So much more than the few bytes of a name. */
  padBytes?: number;
  /** Named by an idempotency key, so that it may be signed anew. */
  isNamed?: boolean;
  authority?: string;
};

let messages = 0;

/** A name that no other message of the run has. */
export const newName = (from: Agent): string => `${from.did.slice(-4)}-${(messages += 1)}`;

export function signMessage(
  from: Agent,
  to: Agent,
  { timestamp, padBytes = 0, isNamed = false, authority }: MessageOptions = {},
): SignedMessage {
  const key = newName(from);
  const payload = padBytes === 0 ? { key } : { key, pad: "x".repeat(padBytes) };
  const signed = {
    ...hookOf(to.did, payload, isNamed ? { "Idempotency-Key": key } : {}),
    ...(timestamp === undefined ? {} : { timestamp }),
  };
  return {
    key,
    from,
    to,
    signed,
    headers: signedHeaders(from, signed),
    ...(authority === undefined ? {} : { authority }),
  };
}

/** The same message under a new signature, as a client sends it that does not know what became of the first. */
export const signedAnew = (message: SignedMessage): SignedMessage => ({
  ...message,
  headers: signedHeaders(message.from, message.signed),
});

/** Sends a message as it was signed and writes the attempt down. */
export async function post(
  run: Run,
  { key, from, to, signed, headers, authority }: SignedMessage,
  url = run.program.url,
): Promise<Asked> {
  const asked = await run.ask("hook", () => send(url, signed, headers));
  const { outcome, begunAtMs, atMs, body } = asked;
  const deliveryId = outcome === 202 ? String(body["deliveryId"]) : null;
  run.history.record({
    kind: "send",
    begunAtMs,
    atMs,
    key,
    sender: from.did,
    recipient: to.did,
    outcome,
    deliveryId,
    wasKnown: body["code"] === "PROXY_AUTH_REPLAY",
    ...(authority === undefined ? {} : { authority }),
  });
  return asked;
}

/** One RPC of the operator's. The outcome is that of the call, not of the HTTP request around it. */
export async function operatorRpc(
  run: Run,
  method: string,
  params: Record<string, unknown>,
): Promise<Asked & { result: Record<string, unknown> }> {
  return unwrapped(await run.ask(method, () => operator(run.program.url, "POST", "/rpc", rpcBody(method, params))));
}

export async function agentRpc(
  run: Run,
  agent: Agent,
  method: string,
  params: Record<string, unknown>,
): Promise<Asked & { result: Record<string, unknown> }> {
  const signed = { method: "POST", path: "/rpc", body: JSON.stringify(rpcBody(method, params)) };
  return unwrapped(await run.ask(method, () => send(run.program.url, signed, signedHeaders(agent, signed))));
}

export function rpcBody(method: string, params: Record<string, unknown>) {
  return { jsonrpc: "2.0", id: 1, method, params };
}

/** A call that failed inside a 200 has the status its error names, or 400. */
function unwrapped(asked: Asked): Asked & { result: Record<string, unknown> } {
  const { result, error } = asked.body as { result?: Record<string, unknown>; error?: unknown };
  if (result !== undefined || asked.outcome !== 200) return { ...asked, result: result ?? {} };
  return { ...asked, outcome: error === undefined ? "unknown" : 400, result: {} };
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

class Silence extends Error {}

async function within<T>(answer: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Silence()), ms);
  });
  try {
    return await Promise.race([answer, silence]);
  } finally {
    clearTimeout(timer);
  }
}
