import { figure, interleave, ratioFigure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";
import type { Served } from "../serve.ts";
import { complaints, type Figures } from "./hook-to-floor.ts";

const CONNECTIONS = 16;

/** The hardest mix for batches: no two messages of a sender in a row go to the same recipient. */
const everybodyToEverybody: Row = {
  name: "everybody-to-everybody",
  about: "the same with each of 16 senders writing to all 16 recipients in turn, at 16 connections",
  byNameOnly: true,
  async run(bench) {
    const [proxy, floor] = await Promise.all([bench.proxy(), bench.floor()]);
    const load = bench.load();
    const agents = await load.prepare({ ...SCENE, fan: SCENE.recipients, url: proxy.url, arePaired: false });
    await pairAll(await proxy.database(), agents);
    const plan = { connections: CONNECTIONS, seconds: bench.seconds, expected: 202 };
    const { hook, base } = await interleave(
      bench.rounds,
      {
        hook: (): Promise<Figures> => load.run({ ...plan, url: proxy.url, deliver: true }),
        base: (): Promise<Figures> => load.run({ ...plan, url: floor.url, deliver: false }),
      },
      () => load.sign({ count: Math.ceil(bench.seconds * SENDS_A_SECOND) }),
    );
    const delivered = hook.map(({ deliveredPerSecond }) => deliveredPerSecond ?? 0);
    const answered = base.map(({ acceptedPerSecond }) => acceptedPerSecond);
    return {
      figures: [
        figure("floor", "/s", answered),
        figure("hook, delivered and acknowledged", "/s", delivered),
        ratioFigure("hook to floor", delivered, answered),
        figure(
          "hook, p50 of the 202",
          "ms",
          hook.map(({ latencyMs }) => latencyMs.p50),
        ),
      ],
      notes: complaints("hook", hook),
    };
  },
};

/** Straight in the store: some hundred pairings by their own way take longer than the rounds. */
async function pairAll(
  db: Awaited<ReturnType<Served["database"]>>,
  { senders, recipients }: { senders: string[]; recipients: string[] },
): Promise<void> {
  await db
    .prepare(
      `INSERT INTO trust_pairs (low_did, high_did, epoch, low_profile, high_profile, confirmed_at_ms)
       SELECT MIN(s.value, r.value), MAX(s.value, r.value), 1, ?3, ?3, 0 FROM json_each(?1) AS s, json_each(?2) AS r`,
    )
    .bind(JSON.stringify(senders), JSON.stringify(recipients), JSON.stringify({ agentName: "a", humanName: "h" }))
    .run();
}

export default everybodyToEverybody;
