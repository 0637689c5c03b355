/**
 * `npm run soak`: mixed load at 70 % of what this machine can do, with agents coming and going, for as long as it takes to see
 * whether memory or disk grow. Ends with 1 when they do, when something was lost, or when the program failed.
 */
import { parseArgs } from "node:util";
import { type HttpAnswer, openHttpConnection } from "../bench/http-connection.ts";
import { requestBytes, signGet, signSend } from "../bench/traffic.ts";
import { type Agent, operator, register, signedHeaders } from "../support/program/agents.ts";
import { freePort } from "../support/program/ports.ts";
import type { History } from "../faults/history.ts";
import { startProgram } from "../support/program/program.ts";
import { createRandom } from "../faults/random.ts";
import { settle, sleep } from "../faults/participants.ts";
import { startRecipients } from "../faults/traffic.ts";
import { type Disk, diskOf } from "./disk.ts";
import { type Memory, openMemoryProbe } from "./memory.ts";
import { SHORT_SETTINGS, withShortLives } from "./short-lives.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "10" }, seed: { type: "string", default: "1" } },
});
const MINUTE_MS = 60_000;
const totalMs = Number(values.minutes) * MINUTE_MS;
/** By then everything short-lived has expired once: nonces live 80 s and are forgotten within another ten. */
const SETTLED_AFTER_MS = Math.max(130_000, totalMs * 0.3);
const CAPACITY_MS = 10_000;
const CONNECTIONS = 16;
const PAIRS = 8;
const SHARE_OF_CAPACITY = 0.7;
/** Live objects are counted to the byte. */
const HEAP_GROWTH_MAX = 0.1;
/** An allocator keeps what it once had at the busiest moment. */
const PRIVATE_GROWTH_MAX = 0.2;
const DISK_GROWTH_MAX = 0.1;
/** What was due longer ago than this is not made up for: more at once than the rate would be kept at once, too. */
const BEHIND_MAX_MS = 2_000;
const LOOK_EVERY_MS = 10_000;
/** What is under way is memory as well, and how much that is, the moment decides: states are looked at while little happens. */
const CALM_MS = 30_000;
const CALM_LOOK_EVERY_MS = 3_000;
const CALM_RATE = 10;
const MEBIBYTE = 1_048_576;

type Sample = { tookMs: number };
type Look = Memory & Disk & { atMs: number };
type State = { privateBytes: number; heapBytes: number; gateBytes: number; databaseBytes: number };

process.exit(await main());

async function main(): Promise<number> {
  if (totalMs <= SETTLED_AFTER_MS)
    throw new Error(
      `at least ${Math.ceil((SETTLED_AFTER_MS + MINUTE_MS) / MINUTE_MS)} minutes: before, nothing has expired yet`,
    );
  const random = createRandom(Number(values.seed));
  // The run counts by itself: a history of every event would be what grows.
  const seen = { delivered: new Set<string>(), faults: 0, cuts: 0, agents: 0 };
  const history: History = {
    events: [],
    record(event) {
      if (event.kind === "deliver") seen.delivered.add(event.deliveryId);
      if (event.kind === "fault" || event.kind === "hang") seen.faults += 1;
    },
    close: () => Promise.resolve(),
  };
  const inspectorPort = await freePort();
  process.env["SALLYPORT_INSPECTOR_PORT"] = String(inspectorPort);
  const program = await startProgram({ settings: SHORT_SETTINGS, edit: withShortLives });
  try {
    const run = await settle(program, history, random, { pairs: PAIRS });
    const recipients = startRecipients(run, { refuseRatio: 0.001 });
    const accepted: string[] = [];
    const refused = new Map<number, number>();

    const nextRequest = (): Buffer => {
      const index = random.between(0, PAIRS - 1);
      const from = run.senders[index] as Agent;
      const to = run.recipients[(index + random.between(0, 1)) % PAIRS] as Agent;
      const kind = random.next();
      if (kind < 0.85)
        return signSend(from, to.did, {
          key: `k${random.next()}`,
          text: "A message of ordinary length, from one agent to another.",
        });
      if (kind < 0.92) return signGet(from, "/pair/peers");
      const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "task/list", params: {} });
      return requestBytes("POST", "/rpc", signedHeaders(from, { method: "POST", path: "/rpc", body }), body);
    };
    const note = ({ status, body }: HttpAnswer): void => {
      if (status === 202) accepted.push(String((JSON.parse(body) as { deliveryId: string }).deliveryId));
      else if (status !== 200) refused.set(status, (refused.get(status) ?? 0) + 1);
      if (status === 500 || body.includes("PROXY_INTERNAL")) seen.faults += 1;
    };

    /** `perSecond` null: as fast as the answers come. Latency counts from when a request was due, not from when it could go. */
    const drive = async (forMs: number, perSecond: number | null): Promise<Sample[]> => {
      const samples: Sample[] = [];
      const startedAtMs = performance.now();
      let slot = 0;
      /** By which everything is due later, since the machine could not keep up. */
      let putOffMs = 0;
      const lane = async (): Promise<void> => {
        const connection = await openHttpConnection(program.url);
        for (;;) {
          const plannedAtMs = perSecond === null ? performance.now() : startedAtMs + (slot++ * 1_000) / perSecond;
          const behindMs = performance.now() - plannedAtMs - putOffMs;
          if (behindMs > BEHIND_MAX_MS) putOffMs += behindMs;
          const dueAtMs = plannedAtMs + putOffMs;
          if (dueAtMs >= startedAtMs + forMs) break;
          // oxlint-disable no-await-in-loop -- one request at a time a connection
          if (dueAtMs > performance.now()) await sleep(dueAtMs - performance.now());
          const bytes = nextRequest();
          const beganAtMs = performance.now();
          note(await connection.send(bytes));
          // oxlint-enable no-await-in-loop
          const endedAtMs = performance.now();
          samples.push({ tookMs: endedAtMs - Math.min(dueAtMs, beganAtMs) });
          if (perSecond === null && endedAtMs - startedAtMs >= forMs) break;
        }
        connection.close();
      };
      await Promise.all(Array.from({ length: CONNECTIONS }, lane));
      return samples;
    };

    // Batches form and caches fill before anything is measured.
    await drive(3_000, null);
    const before = seen.delivered.size;
    const atCapacity = await drive(CAPACITY_MS, null);
    const capacity = Math.min(atCapacity.length, (seen.delivered.size - before) / 0.85) / (CAPACITY_MS / 1_000);
    const rate = capacity * SHARE_OF_CAPACITY;
    console.log(`capacity ${capacity.toFixed(0)}/s; ${rate.toFixed(0)}/s for ${values.minutes} min`);

    const residents = new Set(diskOf(program.stateDir).gates.keys());
    let running = true;
    const guests = await openHttpConnection(program.url);
    const comingAndGoing = (async () => {
      while (running) {
        // oxlint-disable no-await-in-loop -- one agent after the other
        await sleep(random.between(2_000, 6_000));
        const guest = await register(program.url, "guest");
        note(await guests.send(signGet(guest, "/pair/peers")));
        seen.agents += 1;
        await operator(program.url, "POST", "/v1/agents/revoke", { agentDid: guest.did });
        recipients.cut();
        seen.cuts += 1;
        // oxlint-enable no-await-in-loop
      }
    })();

    const probe = await openMemoryProbe(inspectorPort);
    const looks: Look[] = [];
    const watchedFromMs = performance.now();
    const lookAfter = async (ms: number): Promise<Look> => {
      await sleep(ms);
      const atMs = performance.now() - watchedFromMs;
      return { ...(await probe.sample()), ...diskOf(program.stateDir), atMs };
    };
    let isCalm = false;
    const watching = (async () => {
      // oxlint-disable-next-line no-await-in-loop -- one look after the other
      while (running) looks.push(await lookAfter(isCalm ? CALM_LOOK_EVERY_MS : LOOK_EVERY_MS));
    })();
    /** What is kept. Isolates that have nothing to do collect nothing either, so a little goes on. */
    const state = async (): Promise<State> => {
      isCalm = true;
      const fromMs = performance.now() - watchedFromMs + CALM_MS / 3;
      await drive(CALM_MS, CALM_RATE);
      isCalm = false;
      return stateOf(
        looks.filter(({ atMs }) => atMs >= fromMs),
        residents,
      );
    };
    const early = await drive(SETTLED_AFTER_MS, rate);
    const start = await state();
    const late = await drive(totalMs - SETTLED_AFTER_MS, rate);
    const end = await state();
    running = false;
    await comingAndGoing;
    await watching;
    probe.close();
    guests.close();
    const drainedByMs = performance.now() + 60_000;
    const missing = (): number => accepted.filter((id) => !seen.delivered.has(id)).length;
    // oxlint-disable-next-line no-await-in-loop -- until everything has come
    while (missing() > 0 && performance.now() < drainedByMs) await sleep(250);
    recipients.stop();

    const p99 = (samples: Sample[]): string =>
      quantile(
        samples.map(({ tookMs }) => tookMs),
        0.99,
      ).toFixed(0);
    const requests = early.length + late.length;
    const privateGrowth = start.privateBytes === 0 ? 0 : end.privateBytes / start.privateBytes - 1;
    const heapGrowth = end.heapBytes / start.heapBytes - 1;
    const diskGrowth = end.gateBytes / start.gateBytes - 1;
    const lost = missing();
    console.log(
      `requests       ${requests}, ${(requests / (totalMs / 1_000)).toFixed(0)}/s; ${accepted.length} messages accepted, ${lost} not delivered; other answers ${JSON.stringify(Object.fromEntries(refused))}`,
    );
    console.log(`p99            ${p99(early)} ms until settled, ${p99(late)} ms after`);
    const minutes = Map.groupBy(looks, ({ atMs }) => Math.floor(atMs / MINUTE_MS));
    const byMinute = (bytesOf: (look: Look) => number): string =>
      [...minutes.values()].map((minute) => mib(Math.min(...minute.map((look) => bytesOf(look))))).join(", ");
    console.log(
      `live heap      ${mib(start.heapBytes)} once settled, ${mib(end.heapBytes)} at the end (${percent(heapGrowth)}): what the program holds`,
    );
    console.log(`               ${byMinute(({ heapBytes }) => heapBytes)}, minute by minute`);
    console.log(
      start.privateBytes === 0
        ? "workerd        its memory is not known on this system"
        : `workerd        ${mib(start.privateBytes)} once settled, ${mib(end.privateBytes)} at the end (${percent(privateGrowth)}): the process's own memory after collection`,
    );
    console.log(`               ${byMinute(({ privateBytes }) => privateBytes ?? 0)}, minute by minute`);
    console.log(
      `gates on disk  ${mib(start.gateBytes)} once settled, ${mib(end.gateBytes)} at the end (${percent(diskGrowth)}), without those of agents that came and went`,
    );
    console.log(
      `database       ${mib(start.databaseBytes)} once settled, ${mib(end.databaseBytes)} at the end: registrations and the audit log stay`,
    );
    console.log(`came and went  ${seen.agents} agents, all sockets ${seen.cuts} times; faults ${seen.faults}`);
    const failures = [
      lost > 0 && `${lost} messages lost`,
      seen.faults > 0 && `${seen.faults} faults`,
      heapGrowth > HEAP_GROWTH_MAX && "the program's heap grows",
      privateGrowth > PRIVATE_GROWTH_MAX && "the process's memory grows",
      diskGrowth > DISK_GROWTH_MAX && "the disk grows",
    ].filter((failure) => failure !== false);
    for (const failure of failures) console.log(`FAILED ${failure}`);
    return failures.length === 0 ? 0 : 1;
  } finally {
    await program.stop();
  }
}

/**
 * The lowest of some looks: whatever happens at the moment adds to what is kept, and nothing takes from it.
 *
 * @param residents whose databases are compared: those that were there before anybody came or went
 */
function stateOf(looks: Look[], residents: ReadonlySet<string>): State {
  if (looks.length === 0) throw new Error("nothing has been looked at");
  const lowest = (bytesOf: (look: Look) => number): number => Math.min(...looks.map((look) => bytesOf(look)));
  return {
    privateBytes: lowest(({ privateBytes }) => privateBytes ?? 0),
    heapBytes: lowest(({ heapBytes }) => heapBytes),
    gateBytes: lowest(({ gates }) =>
      [...gates].filter(([name]) => residents.has(name)).reduce((sum, [, bytes]) => sum + bytes, 0),
    ),
    databaseBytes: lowest(({ database }) => database),
  };
}

function quantile(numbers: number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

function mib(bytes: number): string {
  return `${(bytes / MEBIBYTE).toFixed(1)} MiB`;
}

function percent(share: number): string {
  return `${share >= 0 ? "+" : ""}${(share * 100).toFixed(1)} %`;
}
