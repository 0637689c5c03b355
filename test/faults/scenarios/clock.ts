import { type Agent, send } from "../../support/program/agents.ts";
import { startProgram } from "../../support/program/program.ts";
import { post, settle, type SignedMessage, signMessage, type Run } from "../participants.ts";
import { replay, settled, startRecipients } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

const MESSAGES = 300;
const SKEW_MAX_SECONDS = 300;
/** The tests' clock and the gate's are one, but a request takes its time. */
const EDGE_SECONDS = 3;

export const clock: Scenario = {
  name: "clock",
  does: "the client's clock jumps to and fro, within the window and beyond it; everything is tried again, also after a restart",
  needs: ["accepted", "forged", "replays"],
  async run({ history, random, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    try {
      const run = await settle(program, history, random, { pairs: 2 });
      const recipients = startRecipients(run);
      const taken: SignedMessage[] = [];
      for (let index = 0; index < MESSAGES; index++) {
        const from = random.pick(run.senders);
        const to = run.recipients[run.senders.indexOf(from)] as Agent;
        const isWithin = random.chance(0.6);
        const offset = isWithin
          ? random.between(-SKEW_MAX_SECONDS + EDGE_SECONDS, SKEW_MAX_SECONDS - EDGE_SECONDS)
          : outside(random.next());
        const message = signMessage(from, to, { timestamp: Math.floor(Date.now() / 1_000) + offset });
        // oxlint-disable no-await-in-loop -- a clock that jumps between one request and the next
        if (isWithin) {
          const asked = await post(run, message);
          if (asked.outcome === 202) taken.push(message);
          else
            history.record({
              kind: "fault",
              atMs: asked.atMs,
              what: `refused at ${offset} s`,
              status: Number(asked.outcome),
              detail: JSON.stringify(asked.body),
            });
          if (random.chance(0.3)) await replay(run, message);
        } else {
          await forge(run, `timestamp ${offset} s off`, message);
        }
        // oxlint-enable no-await-in-loop
      }
      // What was signed for now, with the time on its label moved: the signature covers it.
      for (const message of taken.slice(0, 20)) {
        const later = String(Number(message.headers["X-Claw-Timestamp"]) + 1);
        // oxlint-disable-next-line no-await-in-loop
        await forge(run, "timestamp moved", {
          ...message,
          headers: { ...message.headers, "X-Claw-Timestamp": later },
        });
      }
      await program.kill();
      await program.start();
      history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
      // oxlint-disable-next-line no-await-in-loop
      for (const message of taken) await replay(run, message);
      await settled(run, 60_000);
      recipients.stop();
      say(`${taken.length} taken`);
      return { accepted: accepted(history), forged: count(history, "forged"), replays: count(history, "replay") };
    } finally {
      await program.stop();
    }
  },
};

function outside(random: number): number {
  const beyond = SKEW_MAX_SECONDS + EDGE_SECONDS + Math.floor(random * random * 1e9);
  return random < 0.5 ? -beyond : beyond;
}

async function forge(run: Run, what: string, message: SignedMessage): Promise<void> {
  const { outcome, atMs } = await run.ask(what, () => send(run.program.url, message.signed, message.headers));
  run.history.record({ kind: "forged", atMs, what, outcome });
}
