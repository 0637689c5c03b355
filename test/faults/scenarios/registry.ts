import { type Agent, hookOf, register, request, send, signedHeaders } from "../../support/program/agents.ts";
import { startProgram } from "../../support/program/program.ts";
import {
  elsewhere,
  endless,
  failing,
  hanging,
  junk,
  lying,
  resetting,
  slow,
  trickling,
  truncated,
} from "../../support/program/registry-faults.ts";
import {
  ALWAYS_YES,
  type Document,
  type Fault,
  keysDocument,
  type RegistryServer,
  reply,
  startRegistry,
} from "../../support/program/registry-server.ts";
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
/** Longer than the program waits. */
const SLOW_MS = 2_500;
const LISTED_WITHIN_MS = 20_000;

type Mood = { name: string; fault: Fault | null; documents?: readonly Document[] };

/** How the registry is, one after the other: down, silent, slow, broken, sending elsewhere, and lying in ways that are signed. */
function moodsOf(server: RegistryServer): readonly Mood[] {
  const stranger = server.newKey(server.key.kid);
  const lists =
    (list: () => string): Fault =>
    ({ response }) =>
      reply(response, { status: 200, body: JSON.stringify({ crl: list() }) });
  const old = server.list();
  const anHourAgo = Math.floor(Date.now() / 1_000) - 7_200;
  const doubled = keysDocument(server.key.entry, { ...stranger.entry, kid: server.key.kid });
  return [
    { name: "up", fault: null },
    { name: "down", fault: resetting },
    { name: "hanging", fault: hanging },
    { name: "slow", fault: slow(SLOW_MS) },
    { name: "failing", fault: failing },
    { name: "junk", fault: junk },
    { name: "truncated", fault: truncated },
    { name: "endless", fault: endless },
    { name: "dripping", fault: trickling },
    { name: "elsewhere", fault: elsewhere(ALWAYS_YES) },
    // What a liar would have: an empty list that the proxy believes.
    {
      name: "forged-crl",
      fault: lists(() => server.list({ key: stranger, claims: { revocations: [] } })),
      documents: ["crl"],
    },
    { name: "old-crl", fault: lists(() => old), documents: ["crl"] },
    { name: "no-crl", fault: ({ response }) => reply(response, { status: 404, body: "{}" }), documents: ["crl"] },
    {
      name: "other-issuer",
      fault: lists(() => server.list({ claims: { iss: "https://other.sallyport.example", revocations: [] } })),
      documents: ["crl"],
    },
    // Rightly signed, and over.
    {
      name: "expired-crl",
      fault: lists(() => server.list({ claims: { iat: anHourAgo, exp: anHourAgo + 3_600, revocations: [] } })),
      documents: ["crl"],
    },
    // Rightly signed, and said to be something else.
    {
      name: "token-as-crl",
      fault: lists(() => server.list({ header: { typ: "AIT" }, claims: { revocations: [] } })),
      documents: ["crl"],
    },
    {
      name: "doubled-key",
      fault: ({ response }) => reply(response, { status: 200, body: doubled }),
      documents: ["keys"],
    },
    { name: "odd-verdict", fault: lying, documents: ["access"] },
  ];
}

const callsOf = ({ calls }: RegistryServer): number => calls.keys + calls.crl + calls.access;

export const registry: Scenario = {
  name: "registry",
  does: "a registry that is down, hangs, is slow, answers junk, ends half-way, never ends, lies about keys, lists and verdicts",
  needs: ["moods", "accepted", "forged", "registryCalls", "triedRevoked"],
  async run({ history, random, say }) {
    const server = await startRegistry();
    const moods = moodsOf(server);
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
      for (const { name: mood, fault, documents } of moods) {
        server.fail(null);
        server.fail(fault, documents);
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
      server.fail(null);
      await sleep(1_500);
      await tryRevoked();
      await senders.stop();
      await settled(run, 60_000);
      recipients.stop();
      say(`answers: ${told(run)}`);
      return {
        moods: moods.length,
        ...figures,
        triedRevoked: count(history, "used"),
        accepted: accepted(history),
        forged: count(history, "forged"),
        registryCalls: callsOf(server),
      };

      async function tryForged(from: Agent, to: Agent): Promise<void> {
        const signed = hookOf(to.did, { forged: true });
        const ait = server.ait(from, {}, { key: server.newKey(server.key.kid) });
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
      await server.down();
    }
  },
};
