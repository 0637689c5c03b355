import { operator, pair, register } from "../../support/program/agents.ts";
import { startProgram } from "../../support/program/program.ts";
import { pairHostileDevice, startNeighbours } from "../hostile.ts";
import { hasWorked, operatorRpc, settle, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

const PAIRS = 10;
const QUIET_FOR_MS = 20_000;
const HOSTILE_FOR_MS = 40_000;
const SETTLED_WITHIN_MS = 60_000;
/** Contract §5: an end is answered by then, or says that it could not be reached. */
const END_WITHIN_MS = 5_000;
/** How much slower a 202 may become. */
const SLOWER_MAX = 2;

/** @returns the 99th of a hundred, in milliseconds */
function p99(samples: readonly number[]): number {
  const sorted = samples.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0;
}

export const hostileNeighbours: Scenario = {
  name: "hostile-neighbours",
  does: "one agent, one device and one stranger do all they can at once, while ten pairs talk; then each credential is ended",
  needs: [
    "accepted",
    "delivered",
    "halfBodies",
    "guesses",
    "replays",
    "floods",
    "oddTokens",
    "sockets",
    "dearFrames",
    "endings",
  ],
  async run({ history, random, say }) {
    // The limits of each agent hold, those of an address do not: all come from one here.
    const program = await startProgram({ isLimited: true, settings: { RATE_LIMIT_PER_IP: "off" } });
    try {
      const run = await settle(program, history, random, { pairs: PAIRS });
      const [hostile, peer] = [await register(program.url, "hostile"), await register(program.url, "peer")];
      await pair(program.url, hostile, peer);
      const device = await pairHostileDevice(run, hostile);
      const recipients = startRecipients(run, { refuseRatio: 0 });
      const senders = startSenders(run, { lanes: 1, pauseMs: 600, replayRatio: 0, largeRatio: 0, namedRatio: 0 });
      await sleep(QUIET_FOR_MS);
      const hostileFromMs = performance.now();
      const neighbours = startNeighbours(run, { agent: hostile, peer, device });
      await sleep(HOSTILE_FOR_MS);
      const hostileUntilMs = performance.now();

      let endings = 0;
      const end = async (what: string, ending: () => Promise<{ ok: boolean; detail: string }>): Promise<void> => {
        const begunAtMs = performance.now();
        const { ok, detail } = await ending();
        const tookMs = performance.now() - begunAtMs;
        endings += 1;
        say(`${what} ended in ${Math.round(tookMs)} ms`);
        if (!ok || tookMs > END_WITHIN_MS)
          history.record({ kind: "slow", atMs: performance.now(), what, tookMs, limitMs: END_WITHIN_MS, detail });
      };
      await end("the device", async () => {
        const asked = await operatorRpc(run, "device.token.revoke", { agentDid: hostile.did, deviceId: device.id });
        return { ok: hasWorked(asked), detail: JSON.stringify(asked.body).slice(0, 300) };
      });
      await end("the agent", async () => {
        const { status, body } = await operator(program.url, "POST", "/v1/agents/revoke", { agentDid: hostile.did });
        return { ok: status === 200, detail: JSON.stringify(body).slice(0, 300) };
      });
      await Promise.all([neighbours.stop(), senders.stop()]);
      await settled(run, SETTLED_WITHIN_MS);
      recipients.stop();
      say(`answers: ${told(run)}`);

      const friends = new Set(run.senders.map(({ did }) => did));
      const sends = history.events.filter((event) => event.kind === "send").filter(({ sender }) => friends.has(sender));
      for (const { key, atMs, outcome } of sends)
        if (outcome !== 202) history.record({ kind: "refused", atMs, key, outcome });
      const took = (fromMs: number, toMs: number): number[] =>
        sends.flatMap(({ begunAtMs, atMs }) => (begunAtMs >= fromMs && atMs <= toMs ? [atMs - begunAtMs] : []));
      const quietMs = p99(took(hostileFromMs - QUIET_FOR_MS + 2_000, hostileFromMs));
      const besideMs = p99(took(hostileFromMs, hostileUntilMs));
      if (besideMs > SLOWER_MAX * quietMs)
        history.record({
          kind: "slow",
          atMs: performance.now(),
          what: "the 202 of well-behaved senders, p99",
          tookMs: besideMs,
          limitMs: SLOWER_MAX * quietMs,
          detail: "",
        });
      return {
        ...neighbours.done,
        endings,
        accepted: accepted(history),
        delivered: recipients.count(),
        refused: count(history, "refused"),
        "p99 of the 202 alone": `${Math.round(quietMs)} ms`,
        "beside them": `${Math.round(besideMs)} ms`,
      };
    } finally {
      await program.stop();
    }
  },
};
