import { figure, interleave, ratioFigure, type Row } from "../row.ts";
import type { RunFigures } from "../run.ts";
import type { Served } from "../serve.ts";
import { pairedRatio } from "../statistics.ts";

const SIZES = { thousand: 1_000, million: 1_000_000 };
/** Rows that one statement inserts. */
const ROWS_AT_ONCE = 100_000;
/** Alone on the line, so that the figure is the check's and no queue's. */
const CONNECTIONS = 1;

/** The question: is a user in a group, through two groups more. No tasks, whose tuples housekeeping would look after. */
const QUESTION: readonly (readonly string[])[] = [
  ["group", "outer", "member", "group", "middle", "member"],
  ["group", "middle", "member", "group", "inner", "member"],
  ["group", "inner", "member", "user", "asker", ""],
];
const CALL = JSON.stringify({
  jsonrpc: "2.0",
  id: 1,
  method: "authz/check",
  params: { subject: "user:asker", relation: "member", object: "group:outer" },
});

const graphCheck: Row = {
  name: "graph-check",
  about: "authz/check through three groups, among a thousand and among a million tuples",
  long: true,
  async run(bench) {
    const [thousand, million] = [
      await filled(await bench.proxy(), SIZES.thousand),
      await filled(await bench.proxy(), SIZES.million),
    ];
    const load = bench.load();
    const asked = (served: Served) => (): Promise<RunFigures> =>
      load.same({
        url: served.url,
        path: "/rpc",
        body: CALL,
        connections: CONNECTIONS,
        seconds: bench.seconds / 2,
        expected: 200,
        holding: '"allowed":true',
      });
    const runs = await interleave(bench.rounds, { thousand: asked(thousand), million: asked(million) });
    const refused = [...runs.thousand, ...runs.million].flatMap((run) => Object.entries(run.refused));
    return {
      figures: [
        figure("p50 among 1 000", "ms", p50(runs.thousand)),
        figure("p50 among 1 000 000", "ms", p50(runs.million)),
        ratioFigure("a million to a thousand", p50(runs.million), p50(runs.thousand), "≤ 1.5"),
      ],
      ratios: { checkMillionToThousand: pairedRatio(p50(runs.million), p50(runs.thousand)).median },
      notes: refused.map(([status, count]) => `${count} answers of ${status} did not allow`),
    };
  },
};

function p50(of: readonly RunFigures[]): number[] {
  return of.map(({ latencyMs }) => latencyMs.p50);
}

/** Half are members of the inner group, half members of groups of a hundred that have nothing to do with the question. */
async function filled(served: Served, tuples: number): Promise<Served> {
  const db = await served.database();
  const into =
    "INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)";
  await db.batch(QUESTION.map((tuple) => db.prepare(`${into} VALUES (?, ?, ?, ?, ?, ?, 0)`).bind(...tuple)));
  for (let from = 0; from < tuples; from += ROWS_AT_ONCE) {
    const to = Math.min(tuples, from + ROWS_AT_ONCE);
    // oxlint-disable-next-line no-await-in-loop -- the database has one writer
    await db
      .prepare(
        `WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
         ${into}
         SELECT 'group', CASE i % 2 WHEN 0 THEN 'inner' ELSE 'group-' || (i / 200) END, 'member', 'user', 'user-' || i, '', 0 FROM n`,
      )
      .bind(from, to)
      .run();
  }
  return served;
}

export default graphCheck;
