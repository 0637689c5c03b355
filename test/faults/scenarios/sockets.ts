import { type TcpProxy, startTcpProxy } from "../../support/tcp-proxy.ts";
import { startSocketSenders } from "../socket-senders.ts";
import { startProgram } from "../../support/program/program.ts";
import { settle, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, deadLettered, repeats, type Scenario } from "./scenario.ts";

const FOR_MS = 80_000;
/** Longer than the 30 s after which the program closes a reader whose window is full. */
const MUTE_FOR_MS = 40_000;
const SIDES = 4;
/** A message that went into a dead proxy is tried again after 30 s. */
const SETTLED_WITHIN_MS = 90_000;

export const sockets: Scenario = {
  name: "sockets",
  does: "sockets cut without close, half-open, slow and mute readers; frames and acknowledgements doubled, late and out of order",
  needs: [
    "cuts",
    "halfOpen",
    "stalls",
    "mute",
    "acksDoubled",
    "acksReordered",
    "framesDoubled",
    "framesLate",
    "framesSwapped",
    "framesResent",
    "repeats",
    "accepted",
    "delivered",
  ],
  async run({ history, random, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    /** First those of the recipients, then those of the senders. */
    const proxies: TcpProxy[] = [];
    try {
      const run = await settle(program, history, random, { pairs: SIDES });
      for (let index = 0; index < 2 * SIDES; index++) {
        // oxlint-disable-next-line no-await-in-loop
        proxies.push(await startTcpProxy(program.port));
      }
      const recipients = startRecipients(run, {
        urlOf: (index) => (proxies[index] as TcpProxy).url,
        garbled: true,
        silentRatio: 0.002,
      });
      const socketSenders = startSocketSenders(run, { urlOf: (index) => (proxies[SIDES + index] as TcpProxy).url });
      const senders = startSenders(run, { largeRatio: 0.1 });
      const done = { cuts: 0, halfOpen: 0, stalls: 0, mute: 0 };
      const endAtMs = performance.now() + FOR_MS;
      // One reader that takes nothing at all, for longer than anybody waits.
      const muteFromMs = performance.now() + 5_000;
      const muteUntilMs = muteFromMs + MUTE_FOR_MS;
      while (performance.now() < endAtMs) {
        // oxlint-disable-next-line no-await-in-loop
        await sleep(random.between(100, 700));
        const nowMs = performance.now();
        if (done.mute === 0 && nowMs >= muteFromMs) {
          done.mute += 1;
          proxies[0]?.stall(muteUntilMs - nowMs);
        }
        const proxy = random.pick(nowMs >= muteFromMs && nowMs < muteUntilMs ? proxies.slice(1) : proxies);
        const what = random.next();
        if (what < 0.5) {
          done.cuts += 1;
          proxy.cut();
        } else if (what < 0.7) {
          proxy.goDead();
          // The client notices by itself some time later, as one with a heartbeat would; the program does not.
          setTimeout(() => void (done.halfOpen += proxy.forget()), random.between(500, 5_000)).unref();
        } else {
          done.stalls += 1;
          proxy.stall(random.between(200, 4_000));
        }
      }
      say(`${done.cuts} cuts, ${accepted(history)} accepted, ${recipients.count()} delivered`);
      await Promise.all([senders.stop(), socketSenders.stop()]);
      await settled(run, SETTLED_WITHIN_MS);
      say(`answers: ${told(run)}`);
      say(`sockets of recipients ended with ${recipients.closes()}`);
      recipients.stop();
      const { doubled, reordered } = recipients.garbled();
      const letters = socketSenders.done();
      return {
        ...done,
        acksDoubled: doubled,
        acksReordered: reordered,
        frames: letters.written,
        framesDoubled: letters.doubled,
        framesLate: letters.late,
        framesSwapped: letters.swapped,
        framesResent: letters.resent,
        receipts: letters.receipts,
        accepted: accepted(history),
        delivered: recipients.count(),
        repeats: repeats(history),
        deadLettered: deadLettered(history),
      };
    } finally {
      for (const proxy of proxies) proxy.close();
      await program.stop();
    }
  },
};
