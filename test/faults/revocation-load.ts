/**
 * Devices, shared secrets, API keys, agents and pairings whose authority is used, ended while it is used, and tried again,
 * also after a restart.
 */
import { type Agent, pair, register } from "../support/program/agents.ts";
import { createLives, type Ended } from "./credential-lifecycle.ts";
import { type Asked, hasWorked, sleep, type Run } from "./participants.ts";

export type Authorities = {
  /** Ends the lives, and tries everything once more. */
  stop(): Promise<void>;
  tried(): number;
  ended(): number;
  /** Ends by kind, and how many of those authorities had been seen to work before. */
  kinds(): string;
  worked(): number;
};

const LIVES_AT_ONCE = 2;

export async function startAuthorities(run: Run): Promise<Authorities> {
  const { program, history, random } = run;
  const agent = await register(run.registryUrl, "manager");
  const peer = run.recipients[0] as Agent;
  const paired = await pair(program.url, agent, peer);
  if (paired.status !== 201) throw new Error(`the manager is not paired: ${paired.status}`);
  run.known.set(agent.did, agent);
  const past: Ended[] = [];
  const kinds = new Map<string, number>();
  const inUse = new Set<string>();
  let worked = 0;
  let tried = 0;
  let running = true;

  const used = (authority: string, via: string, asked: Asked): void => {
    const { begunAtMs, atMs } = asked;
    if (hasWorked(asked)) inUse.add(authority);
    history.record({
      kind: "used",
      begunAtMs,
      atMs,
      authority,
      via,
      accepted: hasWorked(asked),
      boot: program.boots(),
    });
  };
  /** Its end was answered with success: it belongs to the past from now on. */
  const invalidated = (ended: Ended, asked: Asked): void => {
    const { authority } = ended;
    const kind = authority.slice(0, authority.indexOf(" "));
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    if (inUse.has(authority)) worked += 1;
    history.record({
      kind: "invalidated",
      begunAtMs: asked.begunAtMs,
      atMs: asked.atMs,
      authority,
    });
    past.push(ended);
  };
  const tryAgain = async ({ authority, via, attempt }: Ended): Promise<void> => {
    tried += 1;
    used(authority, via, await attempt());
  };

  const lives = createLives(run, { agent, peer, used, invalidated, tryAgain });
  const loop = async (): Promise<void> => {
    let boot = program.boots();
    while (running) {
      // oxlint-disable no-await-in-loop -- one life after the other
      try {
        if (program.boots() !== boot) {
          boot = program.boots();
          for (let turn = 0; turn < 4 && past.length > 0; turn++) await tryAgain(random.pick(past));
        }
        await random.pick(lives.all)();
      } catch (error) {
        // A kill between two steps: the next life begins anew.
        if (!(error instanceof Error)) throw error;
      }
      await sleep(random.between(20, 150));
      // oxlint-enable no-await-in-loop
    }
  };
  const tryAll = async (): Promise<void> => {
    // At the end everything that ever ended, once more.
    for (const ended of past.slice(-150)) {
      // oxlint-disable-next-line no-await-in-loop
      await tryAgain(ended);
    }
    await lives.countAgain();
  };
  const loops = Array.from({ length: LIVES_AT_ONCE }, loop);
  return {
    tried: () => tried,
    ended: () => past.length,
    worked: () => worked,
    kinds: () => [...kinds].map(([kind, times]) => `${kind} × ${times}`).join(", "),
    async stop() {
      running = false;
      await Promise.all(loops);
      await tryAll();
    },
  };
}
