import { figure, type Figure, type Row, SCENE, SENDS_A_SECOND } from "../row.ts";

const WORKER = "test/bench/worker/instrumented.ts";
type RowCounts = { inserted: number; updated: number; deleted: number };
type Counts = {
  rpcs: Record<string, number>;
  commits: number;
  alarms: number;
  statements: number;
  rows: Record<string, RowCounts>;
};

/** Counted, not timed: the Worker is built with counters around the storage and the stubs of the gates. */
const workPerMessage: Row = {
  name: "work-per-message",
  about: "RPCs, commits, SQL statements and rows a message, everything delivered and acknowledged",
  builds: [WORKER],
  async run(bench) {
    const proxy = await bench.proxy({}, await bench.bundle(WORKER));
    const load = bench.load();
    await load.prepare({ ...SCENE, url: proxy.url });
    const figures: Figure[] = [];
    const notes: string[] = [];
    for (const connections of bench.quick ? [16] : [4, 16, 64]) {
      const plan = { url: proxy.url, connections, expected: 202, deliver: true };
      // oxlint-disable no-await-in-loop -- one level after the other
      await load.sign({ count: SENDS_A_SECOND });
      await load.run({ ...plan, seconds: 0.5 });
      await load.sign({ count: Math.ceil(bench.seconds * SENDS_A_SECOND) });
      await counts(proxy.url);
      const { accepted } = await load.run({ ...plan, seconds: bench.seconds, settle: false });
      const { rpcs, commits, alarms, statements, rows } = await counts(proxy.url);
      // oxlint-enable no-await-in-loop
      const at = `at ${connections} connections`;
      const { submit = 0, ...others } = rpcs;
      const other = Object.values(others).reduce((sum, count) => sum + count, 0);
      figures.push(
        figure(`RPCs to the sender's gate ${at}`, "a message", [submit / accepted]),
        figure(`other RPCs ${at}`, "a message", [other / accepted], "≤ 1.2"),
        figure(`commits ${at}`, "a message", [commits / accepted], "≤ 2.3"),
        figure(`writing statements ${at}`, "a message", [statements / accepted]),
        figure(`rows written, deletions included, ${at}`, "a message", [rowsOf(rows) / accepted], "≤ 8"),
        figure(`alarms set ${at}`, "a message", [alarms / accepted]),
      );
      const each = Object.entries(others).map(([method, count]) => `${method} ${(count / accepted).toFixed(2)}`);
      notes.push(`other RPCs ${at}: ${each.join(", ")}`);
      const tables = Object.entries(rows).map(([table, of]) => `${table} ${(rowsOf({ of }) / accepted).toFixed(2)}`);
      notes.push(`rows ${at}: ${tables.join(", ")}`);
    }
    return { figures, notes };
  },
};

/** All that is written is deleted again, some of it a day later: each entry that has been made is counted for that too. */
function rowsOf(tables: Record<string, RowCounts>): number {
  return Object.values(tables).reduce(
    (sum, { inserted, updated, deleted }) => sum + inserted + updated + Math.max(inserted, deleted),
    0,
  );
}

/** What was counted since the last time it was asked for. */
async function counts(url: string): Promise<Counts> {
  return (await (await fetch(`${url}/bench/counts`)).json()) as Counts;
}

export default workPerMessage;
