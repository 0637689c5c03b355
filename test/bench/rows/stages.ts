import { pair, register } from "../../support/program/agents.ts";
import { openHttpConnection } from "../http-connection.ts";
import { figure, interleave, type Row } from "../row.ts";
import { median } from "../statistics.ts";
import { signSend } from "../traffic.ts";

const WORKER = "test/bench/worker/stages.ts";
/** What the client's parser takes for the path; the proof is that of a hook. */
const HOOK_PATH = "/hooks/agent";

const LOOPS = ["nothing", "nothingAwaited", "gate-nothing"] as const;

type Stage = {
  label: string;
  /** As `worker/stages.ts` calls it. */
  name: string;
  /** How often in one round: some tens of milliseconds' work. */
  times: number;
  /** The loop without a stage, whose time is taken off, and that of the request which runs it. */
  without: (typeof LOOPS)[number];
  /** Messages that it is about each time; 1 by default. */
  messages?: number;
};

const AWAITED = { without: "nothingAwaited" } as const;
const GATE = { without: "gate-nothing" } as const;
const BATCH = 16;

/** In the order in which a send meets them. */
const STAGES: readonly Stage[] = [
  { label: "form of the headers, token remembered", name: "form", times: 2_000, without: "nothing" },
  { label: "form of the headers, token first seen", name: "formFirst", times: 500, without: "nothing" },
  { label: "1 token, remembered", name: "token", times: 20_000, ...AWAITED },
  { label: "1 token, first seen", name: "tokenFirst", times: 200, ...AWAITED },
  { label: "2 revocation", name: "revocation", times: 20_000, ...AWAITED },
  { label: "3 body hash", name: "bodyHash", times: 2_000, ...AWAITED },
  { label: "3 proof, the Ed25519 verify", name: "proof", times: 300, ...AWAITED },
  { label: "4 replay", name: "replay", times: 20_000, without: "nothing" },
  { label: "5 trust, remembered", name: "trust", times: 10_000, ...AWAITED },
  { label: "6 access, remembered", name: "access", times: 5_000, ...AWAITED },
  { label: "the decision, logged", name: "decision", times: 500, without: "nothing" },
  { label: "the hop to a gate and back, doing nothing", name: "hop", times: 300, ...AWAITED },
  { label: "gate: admission, the nonce written", name: "gate-admission", times: 2_000, ...GATE },
  { label: "gate: a message into the outbox", name: "gate-outbox", times: 2_000, ...GATE },
  {
    label: `gate: into the outbox, handed over and settled, ${BATCH} at once`,
    name: "gate-handedOver",
    times: 100,
    messages: BATCH,
    ...GATE,
  },
  { label: `gate: taken over, ${BATCH} at once`, name: "gate-receive", times: 100, messages: BATCH, ...GATE },
  {
    label: `gate: taken over, pushed, acknowledged and reported, ${BATCH} at once`,
    name: "gate-pushed",
    times: 100,
    messages: BATCH,
    ...GATE,
  },
  { label: "gate: a row and its commit, until on disk", name: "gate-commit", times: 50, ...GATE },
  { label: "a deliver frame written", name: "deliver", times: 10_000, without: "nothing" },
  { label: "an acknowledgement read", name: "ack", times: 5_000, without: "nothing" },
];
const EMPTY_TIMES = 50_000;

const stages: Row = {
  name: "stages",
  about: "each stage of a send alone, by the runtime's processor time",
  long: true,
  builds: [WORKER],
  async run(bench) {
    const served = await bench.proxy({}, await bench.bundle(WORKER));
    const { url } = served;
    const [sender, recipient] = [await register(url, "sender"), await register(url, "recipient")];
    const paired = await pair(url, sender, recipient);
    if (paired.status !== 201) throw new Error(`not paired: ${paired.status}`);
    const line = await openHttpConnection(url);

    /** Microseconds of a request that does a stage so many times. */
    const costUs = async (name: string, times: number): Promise<number> => {
      const send = signSend(sender, recipient.did, { text: "x".repeat(120) }).toString("latin1");
      const bytes = Buffer.from(send.replace(HOOK_PATH, `/bench/stage/${name}/${times}`), "latin1");
      await fetch(`${url}/bench/clear`);
      const before = served.cpuMs();
      const answer = await line.send(bytes);
      const after = served.cpuMs();
      if (answer.status !== 200) throw new Error(`${name}: ${answer.status} ${answer.body}`);
      if (before === null || after === null) throw new Error("the system does not tell of processor time");
      return (after - before) * 1_000;
    };
    const subjects: [key: string, () => Promise<number>][] = [
      ...LOOPS.flatMap((loop): [string, () => Promise<number>][] => [
        [`${loop} once`, () => costUs(loop, 1)],
        [loop, () => costUs(loop, EMPTY_TIMES)],
      ]),
      ...STAGES.map(({ name, times }): [string, () => Promise<number>] => [name, () => costUs(name, times)]),
    ];
    const rounds = await interleave(bench.rounds, Object.fromEntries(subjects));
    const cost = (key: string): number => median(rounds[key] ?? []);
    line.close();
    return {
      figures: STAGES.map(({ label, name, times, without, messages = 1 }) => {
        const requestUs = cost(`${without} once`);
        const loopUs = (cost(without) - requestUs) / EMPTY_TIMES;
        const each = (us: number): number => Math.max(0, (us - requestUs) / times - loopUs) / messages;
        return figure(label, messages === 1 ? "µs" : "µs a message", (rounds[name] ?? []).map(each));
      }),
    };
  },
};

export default stages;
