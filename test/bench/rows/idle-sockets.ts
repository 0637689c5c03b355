import { register } from "../../support/program/agents.ts";
import { heartbeatFrame, openSockets, pairDevice } from "../devices.ts";
import { figure, type Row } from "../row.ts";

const WORKER = "test/bench/worker/counted.ts";
/** A gate takes 512. */
const SOCKETS = 500;
/** The runtime lets an object sleep after ten seconds of silence. */
const ASLEEP_AFTER_MS = 13_000;
const ATTEMPTS = 3;
const KIB = 1_024;

const idleSockets: Row = {
  name: "idle-sockets",
  about: `memory of the runtime for each of ${SOCKETS} sockets of a gate that sleeps`,
  long: true,
  builds: [WORKER],
  async run(bench) {
    const { url, residentBytes } = await bench.proxy({}, await bench.bundle(WORKER));
    const agent = await register(url, "agent");
    const device = await pairDevice(url, agent, ["relay"]);
    // As many before as will be measured: what opening them leaves behind is then there already.
    const before = await openSockets(url, device, SOCKETS);
    for (const socket of before) socket.close();
    await Promise.all(before.map((socket) => socket.closed));
    await bench.pause(ASLEEP_AFTER_MS);
    const without = residentBytes();

    const sockets = await openSockets(url, device, SOCKETS);
    const awake = residentBytes();
    let asleep: number | null = null;
    let woken = 0;
    // An alarm of the gate's own may have come in between: then it is let fall asleep once more.
    for (let attempt = 0; attempt < ATTEMPTS && woken !== 1; attempt++) {
      // oxlint-disable no-await-in-loop -- again after the time
      await bench.pause(ASLEEP_AFTER_MS);
      asleep = residentBytes();
      await gatesMade(url);
      const answers = await Promise.all(sockets.slice(0, 10).map((socket) => socket.ask(heartbeatFrame())));
      if (answers.includes(null)) throw new Error("a sleeping socket did not answer");
      woken = await gatesMade(url);
      // oxlint-enable no-await-in-loop
    }
    if (without === null || awake === null || asleep === null) throw new Error("the system does not tell of memory");
    for (const socket of sockets) socket.close();
    return {
      figures: [
        figure("an idle socket, its gate asleep", "KiB", [(asleep - without) / SOCKETS / KIB]),
        figure("the same just after opening", "KiB", [(awake - without) / SOCKETS / KIB]),
        figure("the runtime without sockets", "MiB", [without / KIB / KIB]),
      ],
      notes: woken === 1 ? [] : [`the gate had not been asleep: ${woken} were made for the first frame`],
    };
  },
};

/** Since the last time it was asked. */
async function gatesMade(url: string): Promise<number> {
  return ((await (await fetch(`${url}/bench/counts`)).json()) as { gatesMade: number }).gatesMade;
}

export default idleSockets;
