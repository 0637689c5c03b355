/** The aggregate of everybody's numbers, in SQLite, so that it survives isolates and restarts. */
import type { Batch } from "../telemetry/meter.ts";
import { addDistributions, type Distribution, SERIES_MAX, type Snapshot } from "../telemetry/metric-series.ts";

/** A batch that comes twice within this time counts once. An isolate gives one up long before. */
const BATCH_REMEMBERED_MS = 3_600_000;

export type Aggregate = {
  /** Adds a batch, once; on disk when this returns, as far as the object's output gate is concerned. */
  add(batch: Batch, nowMs: number): void;
  read(): Snapshot;
  prune(nowMs: number): void;
};

type Kind = keyof Snapshot;
type Row = { series: string; kind: Kind; value: number; counts: string | null };

/** @param storage of the object; the tables are made where they are missing */
export function createAggregate(storage: DurableObjectStorage): Aggregate {
  const { sql } = storage;
  sql.exec(`CREATE TABLE IF NOT EXISTS metric_series (
    series TEXT PRIMARY KEY, kind TEXT NOT NULL, value REAL NOT NULL, counts TEXT) WITHOUT ROWID`);
  sql.exec(
    "CREATE TABLE IF NOT EXISTS metric_batches (id TEXT PRIMARY KEY, taken_at_ms INTEGER NOT NULL) WITHOUT ROWID",
  );

  /** Space for a series that is not there yet. */
  let seriesCount = sql.exec<{ n: number }>("SELECT COUNT(*) AS n FROM metric_series").one().n;
  const find = (series: string): Row | null =>
    sql.exec<Row>("SELECT series, kind, value, counts FROM metric_series WHERE series = ?", series).toArray()[0] ??
    null;
  const put = (series: string, kind: Kind, value: number, counts: string | null): void => {
    sql.exec(
      `INSERT INTO metric_series (series, kind, value, counts) VALUES (?, ?, ?, ?)
       ON CONFLICT (series) DO UPDATE SET kind = excluded.kind, value = excluded.value, counts = excluded.counts`,
      series,
      kind,
      value,
      counts,
    );
  };
  /** Whether there is space; a new series beyond the bound is not kept, and counted. */
  const fits = (known: Row | null): boolean => {
    if (known !== null) return true;
    if (seriesCount >= SERIES_MAX) {
      const refused = find(REFUSED);
      if (refused === null) seriesCount += 1;
      put(REFUSED, "counters", (refused?.value ?? 0) + 1, null);
      return false;
    }
    seriesCount += 1;
    return true;
  };

  const addAll = (batch: Batch): void => {
    for (const [series, n] of batch.counters) {
      const known = find(series);
      if (fits(known)) put(series, "counters", (known?.value ?? 0) + n, null);
    }
    for (const [series, value] of batch.gauges) if (fits(find(series))) put(series, "gauges", value, null);
    for (const [series, distribution] of batch.histograms) {
      const known = find(series);
      if (!fits(known)) continue;
      const { counts, sum } = addDistributions(known === null ? undefined : distributionOf(known), distribution);
      put(series, "histograms", sum, JSON.stringify(counts));
    }
  };

  return {
    add(batch, nowMs) {
      storage.transactionSync(() => {
        const { rowsWritten } = sql.exec(
          "INSERT INTO metric_batches (id, taken_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING",
          batch.id,
          nowMs,
        );
        if (rowsWritten > 0) addAll(batch);
      });
    },

    read() {
      const snapshot: Snapshot = { counters: [], gauges: [], histograms: [] };
      for (const row of sql.exec<Row>("SELECT series, kind, value, counts FROM metric_series ORDER BY series")) {
        if (row.kind === "histograms") snapshot.histograms.push([row.series, distributionOf(row)]);
        else snapshot[row.kind].push([row.series, row.value]);
      }
      return snapshot;
    },

    prune(nowMs) {
      sql.exec("DELETE FROM metric_batches WHERE taken_at_ms < ?", nowMs - BATCH_REMEMBERED_MS);
    },
  };
}

const REFUSED = "sallyport_metric_series_refused";

function distributionOf({ value, counts }: Row): Distribution {
  return { counts: counts === null ? [] : (JSON.parse(counts) as number[]), sum: value };
}
