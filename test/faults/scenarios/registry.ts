import { type Agent, hookOf, register, request, send, signedHeaders } from "../../support/program/agents.ts";
import { startProgram } from "../../support/program/program.ts";
import { MOODS, startFaultyRegistry } from "../registry-server.ts";
import { hasWorked, settle, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

/** Everything goes stale within seconds, so that each mood is really felt. */
const SHORT = {
  REGISTRY_TIMEOUT_MS: "500",
  AUTH_DEADLINE_MS: "2000",
  KEYS_TTL_MS: "1000",
  CRL_REFRESH_MS: "1000",
  CRL_MAX_AGE_MS: "120000",
  ACCESS_TTL_MS: "1000",
  BREAKER_OPEN_MS: "500",
};
const MOOD_MS = 2_500;
const LISTED_WITHIN_MS = 20_000;

export const registry: Scenario = {
  name: "registry",
  does: "a registry that is down, hangs, is slow, answers junk, ends half-way, never ends, lies about keys, lists and verdicts",
  needs: ["moods", "accepted", "forged", "registryCalls", "triedRevoked"],
  async run({ history, random, say }) {
    const server = await startFaultyRegistry();
    const program = await startProgram({ settings: { ...QUICK_RETRIES, ...SHORT, REGISTRY_URL: server.url } });
    try {
      const run = await settle(program, history, random, { pairs: 2, registryUrl: server.url });
      const recipients = startRecipients(run);
      const senders = startSenders(run, { lanes: 1 });

      const revoked = await register(server.url, "revoked");
      const authority = `agent ${revoked.did}`;
      const tryRevoked = async (): Promise<boolean> => {
        const asked = await run.ask("revoked", () =>
          request(program.url, revoked, { method: "GET", path: "/pair/peers" }),
        );
        const { begunAtMs, atMs } = asked;
        history.record({
          kind: "used",
          begunAtMs,
          atMs,
          authority,
          via: "http",
          accepted: hasWorked(asked),
          boot: program.boots(),
        });
        return hasWorked(asked);
      };
      if (!(await tryRevoked())) throw new Error("an agent of this registry is not let in");
      server.revoke(revoked.did);
      const listedByMs = performance.now() + LISTED_WITHIN_MS;
      // oxlint-disable-next-line no-await-in-loop -- until the list has come
      while (await tryRevoked()) {
        if (performance.now() > listedByMs) throw new Error("a revocation never took effect");
        // oxlint-disable-next-line no-await-in-loop
        await sleep(200);
      }
      history.record({ kind: "invalidated", begunAtMs: performance.now(), atMs: performance.now(), authority });

      const figures: Record<string, number> = {};
      for (const mood of MOODS) {
        server.become(mood);
        const [before, startedAtMs] = [accepted(history), performance.now()];
        while (performance.now() - startedAtMs < MOOD_MS) {
          // oxlint-disable no-await-in-loop -- tried again and again while the mood lasts
          await tryRevoked();
          await tryForged(run.senders[0] as Agent, run.recipients[0] as Agent);
          await sleep(150);
          // oxlint-enable no-await-in-loop
        }
        figures[mood] = accepted(history) - before;
        // A cold isolate while the registry is what it is: it has only its second level.
        // oxlint-disable no-await-in-loop
        await program.kill(false);
        await program.start();
        history.record({ kind: "boot", atMs: performance.now(), boot: program.boots() });
        await tryRevoked();
        await tryForged(run.senders[0] as Agent, run.recipients[0] as Agent);
        await sleep(500);
        // oxlint-enable no-await-in-loop
        say(`${mood}: ${figures[mood]} accepted`);
      }
      server.become("up");
      await sleep(1_500);
      await tryRevoked();
      await senders.stop();
      await settled(run, 60_000);
      recipients.stop();
      say(`answers: ${told(run)}`);
      return {
        moods: MOODS.length,
        ...figures,
        triedRevoked: count(history, "used"),
        accepted: accepted(history),
        forged: count(history, "forged"),
        registryCalls: server.calls(),
      };

      async function tryForged(from: Agent, to: Agent): Promise<void> {
        const signed = hookOf(to.did, { forged: true });
        const ait = server.forgedAit(from.did, from.publicX);
        const forgeries = {
          "an identity token of another key": { Authorization: `Claw ${ait}` },
          "an access token of nobody": { "X-Claw-Agent-Access": "A".repeat(43) },
        };
        for (const [what, headers] of Object.entries(forgeries)) {
          // oxlint-disable-next-line no-await-in-loop
          const asked = await run.ask(what, () =>
            send(program.url, signed, { ...signedHeaders(from, signed), ...headers }),
          );
          history.record({ kind: "forged", atMs: asked.atMs, what: `${what}`, outcome: asked.outcome });
        }
      }
    } finally {
      await program.stop();
      await server.stop();
    }
  },
};
