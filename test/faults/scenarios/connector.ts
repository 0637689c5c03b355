import { ProblemError } from "../../../src/client/index.ts";
import type { AgentClient } from "../../../src/client/index.ts";
import { startProgram } from "../../support/program/program.ts";
import { type ConnectedMachine, createMachine } from "../connected-machine.ts";
import type { History } from "../history.ts";
import { sleep } from "../participants.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, repeats, type Scenario } from "./scenario.ts";

const SENDERS = 3;
/** How many messages are looked for on the connector's disk after it was killed: of those not taken yet, and of those taken last. */
const LOOKED_FOR = 30;
const SETTLED_WITHIN_MS = 90_000;
const BETWEEN_MS = [100, 900] as const;

/** One message after the other, each tried under its key until it is accepted. */
function startSender(history: History, client: AgentClient, to: string): { stop(): Promise<void> } {
  let isOver = false;
  const run = async (): Promise<void> => {
    for (let number = 1; !isOver; number += 1) {
      const key = `${client.agentDid} ${number}`;
      for (let isAccepted = false; !isAccepted;) {
        const begunAtMs = performance.now();
        const sent = await client.send({ to, payload: { key }, idempotencyKey: `n${number}` }).then(
          ({ deliveryId }) => ({ outcome: 202 as const, deliveryId }),
          (error: unknown) => ({
            outcome: error instanceof ProblemError ? error.status : ("unknown" as const),
            deliveryId: null,
          }),
        );
        isAccepted = sent.deliveryId !== null;
        const who = { key, sender: client.agentDid, recipient: to };
        history.record({ kind: "send", begunAtMs, atMs: performance.now(), ...who, ...sent, wasKnown: false });
        if (!isAccepted) await sleep(50);
      }
      await sleep(5);
    }
  };
  const running = run();
  return {
    stop: () => {
      isOver = true;
      return running;
    },
  };
}

type Sent = { readonly deliveryId: string; readonly sender: string };

/** What was accepted: the oldest of those that the program has not taken, which the connector keeps, and the latest that it has. */
function candidates(history: History, taken: ReadonlySet<string>): Sent[] {
  const all = history.events.flatMap((event) =>
    event.kind === "send" && event.deliveryId !== null ? [{ deliveryId: event.deliveryId, sender: event.sender }] : [],
  );
  const isTaken = ({ deliveryId }: Sent): boolean => taken.has(deliveryId);
  const waiting = all.filter((each) => !isTaken(each)).slice(0, LOOKED_FOR);
  return [...waiting, ...all.filter(isTaken).slice(-LOOKED_FOR)];
}

/** What the connector has acknowledged is on its disk, or with the program already. @returns how many were looked for */
async function lookForAcknowledged(history: History, machine: ConnectedMachine): Promise<number> {
  const known = new Map(machine.senders.map((client) => [client.agentDid, client]));
  const taken = new Set(machine.taken().map(({ deliveryId }) => deliveryId));
  const states = await Promise.all(
    candidates(history, taken).map(async ({ deliveryId, sender }) => ({
      deliveryId,
      state: (await known.get(sender)?.deliveryStatus(deliveryId))?.state,
    })),
  );
  const acknowledged = states.filter(({ state }) => state === "delivered").map(({ deliveryId }) => deliveryId);
  for (const [at, isThere] of machine.has(acknowledged).entries()) {
    const deliveryId = acknowledged[at] ?? "";
    history.record({
      kind: "acknowledged",
      atMs: performance.now(),
      deliveryId,
      isKept: isThere || taken.has(deliveryId),
    });
  }
  return acknowledged.length;
}

/** What the program has taken, as deliveries of the history. */
function recordTaken(history: History, machine: ConnectedMachine): void {
  for (const { atMs, deliveryId, fromAgentDid, payload } of machine.taken()) {
    if (fromAgentDid === null) continue;
    const { key } = payload as { key: string };
    const who = { key, sender: fromAgentDid, recipient: machine.agentDid, deliveryId, isRefused: false };
    history.record({ kind: "deliver", atMs: atMs - performance.timeOrigin, ...who });
  }
}

export const connector: Scenario = {
  name: "connector",
  does: "SIGKILL of a connector with an inbox, the program behind it, and the gate, in turn, under load",
  needs: ["kills", "accepted", "taken", "acknowledged"],
  async run({ history, random, kills, say }) {
    const gate = await startProgram({ settings: QUICK_RETRIES });
    const machine = await createMachine(gate.url, SENDERS);
    try {
      machine.startProgram();
      machine.startConnector();
      const senders = machine.senders.map((client) => startSender(history, client, machine.agentDid));
      let acknowledged = 0;
      const killOne = async (kill: number): Promise<void> => {
        if (kill % 3 === 0) {
          await machine.killConnector();
          acknowledged += await lookForAcknowledged(history, machine);
          machine.startConnector();
        } else if (kill % 3 === 1) {
          await machine.killProgram();
          await sleep(random.between(0, 300));
          machine.startProgram();
        } else {
          await gate.kill(kill % 30 === 2);
          await gate.start();
        }
      };
      for (let kill = 1; kill <= kills; kill += 1) {
        // A connector takes a moment to connect, and has nothing to lose before.
        await sleep(random.between(...BETWEEN_MS) + (kill % 3 === 0 ? 700 : 0));
        await killOne(kill);
        if (kill % 20 === 0) say(`${kill} kills, ${accepted(history)} accepted, ${machine.taken().length} taken`);
      }
      await Promise.all(senders.map((sender) => sender.stop()));
      const all = accepted(history);
      const giveUpAtMs = performance.now() + SETTLED_WITHIN_MS;
      const distinct = (): number =>
        new Set(machine.taken().flatMap(({ fromAgentDid, deliveryId }) => (fromAgentDid === null ? [] : [deliveryId])))
          .size;
      while (distinct() < all && performance.now() < giveUpAtMs) await sleep(200);
      recordTaken(history, machine);
      for (const line of new Set(
        machine
          .said()
          .split("\n")
          .filter((each) => /^\w+: /.test(each))
          .slice(-3),
      ))
        say(line);
      return { kills, accepted: all, taken: distinct(), repeats: repeats(history), acknowledged };
    } finally {
      await machine.stop();
      await gate.stop();
    }
  },
};
