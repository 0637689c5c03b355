/**
 * The proxy with a gate that can be filled in bulk, and with the routes under `/bench/` that fill it and that use one part
 * alone: what takes a million requests to build up is put in place in seconds. Built for the bench alone.
 */
import proxy, { Gate as PlainGate } from "../../../src/worker.ts";
import { migrate } from "../../../src/gate/storage/schema.ts";
import { startDeadline } from "../../../src/resilience/deadline.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { createLog } from "../../../src/telemetry/log.ts";
import { lookUpTrust } from "../../../src/trust/pairs.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { newUlid } from "../../../src/wire/ulid.ts";

export { Housekeeping } from "../../../src/worker.ts";

/** Rows that one statement inserts. */
const ROWS_AT_ONCE = 100_000;
const NUMBERS = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)";
/** Who has sent what waits in a filled queue; a fifth of a queue is one sender's. */
const SENDERS = 5;
const SENDER = "did:cdi:registry.sallyport.example:agent:01K000000000000000000SEND";
const BODY = '{"text":"A message of ordinary length, as one agent would write it to another about a thing."}';

type GrownEnv = Omit<Env, "GATE"> & { GATE: DurableObjectNamespace<Gate> };

export class Gate extends PlainGate {
  /** Nonces that this key has used within the window, spread over the whole range that new ones fall into. */
  fillNonces(keyX: string, count: number): void {
    migrate(this.ctx.storage);
    const every = Math.floor(2 ** 32 / count);
    for (let from = 0; from < count; from += ROWS_AT_ONCE) {
      this.ctx.storage.sql.exec(
        `${NUMBERS} INSERT INTO proof_nonces (nonce, key, timestamp_s)
         SELECT printf('%08x', i * ?3) || '-' || lower(hex(randomblob(4))), ?4, ?5 + i % 100 FROM n`,
        from,
        Math.min(count, from + ROWS_AT_ONCE),
        every,
        keyX,
        Math.floor(Date.now() / 1_000),
      );
    }
  }

  /** Messages that wait for a recipient who is not there. Before the gate's first verified call, which reads them. */
  fillQueue(count: number): void {
    migrate(this.ctx.storage);
    const nowMs = Date.now();
    this.ctx.storage.sql.exec(
      `${NUMBERS} INSERT INTO inbound (delivery_id, sender, state, bytes, created_at_ms, updated_at_ms, due_at_ms, envelope, body)
       SELECT '01K' || printf('%023d', i), ?3 || (i % ${SENDERS}), 0, ?4, ?5, ?5, ?5, '{"fromAgentDid":null}', ?6 FROM n`,
      0,
      count,
      SENDER,
      BODY.length,
      nowMs,
      BODY,
    );
  }
}

type Body = Record<string, string | number>;
type Order = (body: Body, env: GrownEnv, ctx: ExecutionContext) => Promise<unknown>;

const gateAt = (index: number): string =>
  `did:cdi:registry.sallyport.example:agent:01K${String(index).padStart(23, "0")}`;

const ORDERS: Record<string, Order> = {
  async nonces({ did, keyX, count }, env) {
    await env.GATE.getByName(String(did)).fillNonces(String(keyX), Number(count));
  },

  async queue({ gate, count }, env) {
    await env.GATE.getByName(gateAt(Number(gate))).fillQueue(Number(count));
  },

  /** The ids of so many gates, by which their files are named. */
  async ids({ gates }, env) {
    return Array.from({ length: Number(gates) }, (_, gate) => env.GATE.idFromName(gateAt(gate)).toString());
  },

  /** One message more for one of the gates, as its sender's gate would hand it over. */
  async receive({ gate }, env) {
    const nowMs = Date.now();
    const queuedMessage = { createdAtMs: nowMs, bytes: BODY.length, envelope: '{"fromAgentDid":null}', body: BODY };
    const from = `${SENDER}X` as AgentDid;
    return env.GATE.getByName(gateAt(Number(gate))).receive(from, [{ ...queuedMessage, deliveryId: newUlid(nowMs) }]);
  },

  /** A message of the proxy's own for an agent, which goes to one of its sockets at once. */
  async notify({ did }, env) {
    return env.GATE.getByName(String(did)).notify({ fromAgentDid: null, payload: BODY });
  },

  /** Asks the store so many times whether two agents trust each other. */
  async trust({ a, b, times }, env) {
    for (let turn = 0; turn < Number(times); turn++) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other is what is measured
      const { trusted } = await lookUpTrust(env.DB, a as AgentDid, b as AgentDid);
      if (!trusted) throw new Error("a pair is missing");
    }
  },

  /** Fetches the revocation list from the registry, verifies it and reads its entries, as housekeeping does. */
  async list(_body, env, ctx) {
    const { registry, registryScope, config } = runtimeOf(env as unknown as Env);
    const deadline = startDeadline(config.authDeadlineMs, Date.now);
    const background = (work: Promise<unknown>): void => ctx.waitUntil(work);
    const list = await registry.crl.fetchList(registryScope({ now: Date.now, log: createLog(), background, deadline }));
    deadline.end();
    if (!list.ok) throw new Error(`no list: ${list.error.reason}`);
    return { entries: list.value.revocations.length };
  },
};

export default {
  async fetch(request: Request, env: GrownEnv, ctx: ExecutionContext): Promise<Response> {
    const order = ORDERS[new URL(request.url).pathname.replace("/bench/", "")];
    if (order === undefined)
      return proxy.fetch(request as Parameters<typeof proxy.fetch>[0], env as unknown as Env, ctx);
    return Response.json((await order(await request.json(), env, ctx)) ?? null);
  },
};
