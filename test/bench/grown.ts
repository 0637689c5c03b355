/** A proxy with much in place: what front doors would take hours to let in is written straight into its stores. */
import { copyFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Agent, pair, register, request } from "../support/program/agents.ts";
import type { Bench } from "./row.ts";
import { type Device, type DeviceSocket, openSockets, pairDevice } from "./devices.ts";
import type { Bundle } from "../support/program/bundle.ts";
import { type HttpConnection, openHttpConnection } from "./http-connection.ts";
import type { Served } from "./serve.ts";
import { requestBytes } from "./traffic.ts";

/** How much of each is in place. `queues`: so many gates with so many messages waiting in each. */
export type Sizes = {
  agents: number;
  nonces: number;
  queues: { gates: number; each: number };
  revocations: number;
  pairs: number;
  sockets: number;
};

export type Grown = {
  served: Served;
  sizes: Sizes;
  /** Its gate holds the nonces, and it trusts `reader`. */
  writer: Agent;
  /** Its gate holds the sockets. */
  reader: Agent;
  sockets: DeviceSocket[];
  /** One request, alone on the line. */
  send: HttpConnection["send"];
  /** A fresh line, for the next round: the runtime closes one that is idle for some seconds. */
  connect(): Promise<void>;
  /** Runs one of the bench's own routes, `worker/grown.ts`, alone on the line. */
  order(name: string, body: Record<string, string | number>): Promise<void>;
  /** Resolves with the next message that one of the sockets is given. */
  delivered(): Promise<void>;
};

/** Rows that one statement inserts. */
const ROWS_AT_ONCE = 100_000;
const NUMBERS = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)";
const AUTHORITY = "registry.sallyport.example";
const DAY_MS = 86_400_000;

/** Text of 26 characters that stands in the order of its numbers, as an id made in that order does. */
const id = (number: string): string => `'01K' || printf('%023d', ${number})`;
const agentDid = (number: string): string => `'did:cdi:${AUTHORITY}:agent:' || ${id(number)}`;
const ownerDid = (number: string): string => `'did:cdi:${AUTHORITY}:human:' || ${id(number)}`;
/** 43 characters, as 32 bytes have in base64url. */
const key = (salt: string): string => `substr('${salt}' || printf('%042d', i), 1, 43)`;

const TUPLES =
  "INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms) SELECT";

/** What registration writes of an agent, contract §3 and §5. */
const AGENT = [
  `INSERT INTO agents (agent_did, owner_did, tenant_id, name, framework, public_key, ait_ttl_seconds, created_at_ms)
   SELECT ${agentDid("i")}, ${ownerDid("i")}, 'tenant-' || i, 'agent', 'bench', ${key("K")}, 86400, ?3 FROM n`,
  `INSERT INTO agent_keys (public_key, agent_did, since_ms) SELECT ${key("K")}, ${agentDid("i")}, ?3 FROM n`,
  `INSERT INTO aits (jti, agent_did, kid, issued_at_ms, expires_at_ms) SELECT ${id("i")}, ${agentDid("i")}, 'k', ?3, ?3 + ${DAY_MS} FROM n`,
  `INSERT INTO token_families (family_id, agent_did, created_at_ms) SELECT ${id("i")}, ${agentDid("i")}, ?3 FROM n`,
  `INSERT INTO token_pairs (refresh_hash, access_hash, family_id, agent_did, key_x, issued_at_ms, access_expires_at_ms, refresh_expires_at_ms)
   SELECT ${key("R")}, ${key("A")}, ${id("i")}, ${agentDid("i")}, ${key("K")}, ?3, ?3 + 900000, ?3 + 30 * ${DAY_MS} FROM n`,
  `${TUPLES} 'agent', ${agentDid("i")}, 'tenant', 'tenant', 'tenant-' || i, '', ?3 FROM n`,
  `${TUPLES} 'agent', ${agentDid("i")}, 'owner', 'user', ${ownerDid("i")}, '', ?3 FROM n`,
  `${TUPLES} 'agent', ${agentDid("i")}, 'executor', 'agent', ${agentDid("i")}, '', ?3 FROM n`,
  `${TUPLES} 'tenant', 'tenant-' || i, 'member', 'user', ${ownerDid("i")}, '', ?3 FROM n`,
  `${TUPLES} 'tenant', 'tenant-' || i, 'member', 'agent', ${agentDid("i")}, '', ?3 FROM n`,
];

/** Tokens of the agents in place, revoked and not yet expired; ?4 is how many agents there are. */
const REVOCATION = `INSERT INTO aits (jti, agent_did, kid, issued_at_ms, expires_at_ms, revoked_at_ms, revoked_reason)
   SELECT '01M' || printf('%023d', i), ${agentDid("i % ?4")}, 'k', ?3, ?3 + ${DAY_MS}, ?3, 'key lost' FROM n`;

/** Every agent trusts a hundred others. */
const PAIR = `INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms)
   SELECT ${agentDid("i / 100")}, ${agentDid("1000000 + i")}, 1, '{"agentName":"a","humanName":"h"}', '{"agentName":"b","humanName":"h"}', ?3 FROM n`;

export async function grow(bench: Bench, bundle: Bundle, sizes: Sizes): Promise<Grown> {
  const served = await bench.proxy({}, bundle);
  // Filling takes longer than a connection may be idle.
  const fill = async <T>(name: string, body: Record<string, unknown>): Promise<T> => {
    const answer = await fetch(`${served.url}/bench/${name}`, { method: "POST", body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${name}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as T;
  };
  const db = await served.database();
  const nowMs = Date.now();
  // One statement after the other: the database has one writer.
  const insert = async (count: number, statement: string, ...more: number[]): Promise<void> => {
    for (let from = 0; from < count; from += ROWS_AT_ONCE) {
      const to = Math.min(count, from + ROWS_AT_ONCE);
      // oxlint-disable-next-line no-await-in-loop -- some rows at a time
      await db
        .prepare(`${NUMBERS} ${statement}`)
        .bind(from, to, nowMs, ...more)
        .run();
    }
  };
  // oxlint-disable-next-line no-await-in-loop -- in their order
  for (const statement of AGENT) await insert(sizes.agents, statement);
  await insert(sizes.revocations, REVOCATION, sizes.agents);
  await insert(sizes.pairs, PAIR);
  await fill("queue", { gate: 0, count: sizes.queues.each });
  copyGate(served.stateDir, await fill<string[]>("ids", sizes.queues));

  const [writer, reader] = [await register(served.url, "writer"), await register(served.url, "reader")];
  const paired = await pair(served.url, writer, reader);
  if (paired.status !== 201) throw new Error(`not paired: ${paired.status}`);
  await fill("nonces", { did: writer.did, keyX: writer.publicX, count: sizes.nonces });
  let told: (() => void)[] = [];
  const device: Device = await pairDevice(served.url, reader, ["relay"]);
  const sockets = await openSockets(served.url, device, sizes.sockets, () => {
    for (const tell of told) tell();
    told = [];
  });
  // What pairing has told the reader is out of the way.
  await request(served.url, reader, { method: "GET", path: "/v1/dead-letters" });
  let line: HttpConnection | null = null;
  const connect = async (): Promise<void> => {
    line?.close();
    line = await openHttpConnection(served.url);
  };
  const send: Grown["send"] = (bytes) => line?.send(bytes) ?? Promise.reject(new Error("not connected"));
  const order: Grown["order"] = async (name, body) => {
    const headers = { "Content-Type": "application/json" };
    const answer = await send(requestBytes("POST", `/bench/${name}`, headers, JSON.stringify(body)));
    if (answer.status !== 200) throw new Error(`${name}: ${answer.status} ${answer.body}`);
  };
  const delivered = (): Promise<void> => new Promise((resolve) => void told.push(resolve));
  return { served, sizes, writer, reader, sockets, send, connect, order, delivered };
}

/**
 * Gives gates that nobody has called yet the files of the first: laying a schema a thousand times would take longer than
 * everything else. What is in the log beside a file is read when it is opened.
 */
function copyGate(stateDir: string, ids: readonly string[]): void {
  const [first, ...others] = ids;
  const files = readdirSync(stateDir, { recursive: true, encoding: "utf8" });
  for (const suffix of ["", "-wal"]) {
    const file = files.find((path) => path.endsWith(`${first}.sqlite${suffix}`));
    if (file === undefined && suffix === "") throw new Error("the first gate has no file");
    if (file === undefined) continue;
    const path = join(stateDir, file);
    for (const other of others) copyFileSync(path, join(dirname(path), `${other}.sqlite${suffix}`));
  }
}
