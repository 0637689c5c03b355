import { type Cable, layCable } from "../cable.ts";
import { startProgram } from "../program.ts";
import { settle, sleep } from "../town.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, type Scenario } from "./scenario.ts";

const FOR_MS = 40_000;
/** A message that went into a dead cable is tried again after 30 s. */
const SETTLED_WITHIN_MS = 90_000;

export const sockets: Scenario = {
  name: "sockets",
  does: "sockets cut without close, half-open, slow readers; acknowledgements doubled and out of order",
  async run({ history, random, say }) {
    const program = await startProgram({ settings: QUICK_RETRIES });
    const cables: Cable[] = [];
    try {
      const town = await settle(program, history, random, { pairs: 4 });
      for (let index = 0; index < 4; index++) {
        // oxlint-disable-next-line no-await-in-loop
        cables.push(await layCable(program.port));
      }
      const recipients = startRecipients(town, {
        urlOf: (index) => (cables[index] as Cable).url,
        garbled: true,
        silentRatio: 0.002,
      });
      const senders = startSenders(town);
      const done = { cuts: 0, dead: 0, stalls: 0 };
      const endAtMs = performance.now() + FOR_MS;
      while (performance.now() < endAtMs) {
        // oxlint-disable-next-line no-await-in-loop
        await sleep(random.between(100, 900));
        const cable = random.pick(cables);
        const what = random.next();
        if (what < 0.6) {
          done.cuts += 1;
          cable.cut();
        } else if (what < 0.7) {
          done.dead += 1;
          cable.goDead();
          // The client notices by itself some time later, as a client with a heartbeat would.
          setTimeout(() => cable.cut(), random.between(500, 5_000)).unref();
        } else {
          done.stalls += 1;
          cable.stall(random.between(200, 4_000));
        }
      }
      say(`${done.cuts} cuts, ${accepted(history)} accepted, ${recipients.count()} delivered`);
      await senders.stop();
      await settled(town, SETTLED_WITHIN_MS);
      recipients.stop();
      return { ...done, accepted: accepted(history), delivered: recipients.count() };
    } finally {
      for (const cable of cables) cable.close();
      await program.stop();
    }
  },
};
