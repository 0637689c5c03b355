/** Pages of the audit: which entries, in which order, and that each is read by an index. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { auditStatement } from "../../src/audit/entry.ts";
import { type AuditFilter, auditPageStatement } from "../../src/audit/listing.ts";
import { runBatch } from "../../src/database/batch.ts";
import { textOf } from "../../src/database/statement.ts";
import { NOW_MS, operatorCall } from "../identity/fixture.ts";
import { type Agent, codeOf, operator, register, result } from "../support/world.ts";

const SUBJECTS = ["agent:a", "agent:b"];
const ACTIONS = ["x.one", "x.two"];

type Entry = { id: string; atMs: number; subject: string; action: string };
type Page = { entries: Entry[]; nextCursor?: string };
const page = async (filter: Record<string, unknown>): Promise<Page> =>
  (await result(operator, "audit/list", filter)) as unknown as Page;

beforeAll(async () => {
  // Two at each moment, so that the time alone orders nothing.
  const entries = Array.from({ length: 60 }, (_, at) => ({
    atMs: NOW_MS + Math.floor(at / 2),
    subject: SUBJECTS[at % 2]!,
    action: ACTIONS[Math.floor(at / 4) % 2]!,
  }));
  await runBatch(
    env.DB,
    entries.map(({ atMs, ...what }) =>
      auditStatement({ ...operatorCall(), now: () => atMs }, { ...what, agentDid: null, result: "ok" }),
    ),
  );
});

const FILTERS: Record<string, AuditFilter> = {
  nothing: {},
  "a subject": { subject: "agent:a" },
  "an action": { action: "x.two" },
  both: { subject: "agent:b", action: "x.one" },
  "a time": { sinceMs: NOW_MS + 3, untilMs: NOW_MS + 20 },
  everything: { subject: "agent:b", action: "x.one", sinceMs: NOW_MS + 3, untilMs: NOW_MS + 20 },
};

describe("audit/list", () => {
  test.each(Object.entries(FILTERS))("by %s: gives each entry once, newest first, in pages", async (_name, filter) => {
    const all = (await page({ ...filter, untilMs: filter.untilMs ?? NOW_MS + 1_000, limit: 100 })).entries;
    const { subject, action, sinceMs = 0, untilMs = Number.MAX_SAFE_INTEGER } = filter;
    expect(all.length).toBeGreaterThan(5);
    for (const entry of all) {
      if (subject !== undefined) expect(entry.subject).toBe(subject);
      if (action !== undefined) expect(entry.action).toBe(action);
      expect(entry.atMs).toBeGreaterThanOrEqual(sinceMs);
      expect(entry.atMs).toBeLessThanOrEqual(untilMs);
    }
    const order = all.map(({ atMs, id }) => `${atMs}-${id}`);
    expect(order).toEqual(order.toSorted().toReversed());
    const walked: string[] = [];
    let cursor: string | undefined;
    do {
      // oxlint-disable-next-line no-await-in-loop -- page after page
      const next = await page({
        ...filter,
        untilMs: filter.untilMs ?? NOW_MS + 1_000,
        limit: 7,
        ...(cursor === undefined ? {} : { cursor }),
      });
      walked.push(...next.entries.map(({ atMs, id }) => `${atMs}-${id}`));
      cursor = next.nextCursor;
    } while (cursor !== undefined);
    expect(walked).toEqual(order);
  });

  test.each(Object.entries(FILTERS))(
    "by %s: reads by an index alone, on the first page and on a later one",
    async (_name, filter) => {
      for (const after of [null, { atMs: NOW_MS + 10, id: "01K00000000000000000000000" }]) {
        const sql = textOf(auditPageStatement(filter, after, 50));
        const bound = Array.from({ length: (sql.match(/\?/g) ?? []).length }, () => 1);
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const { results } = await env.DB.prepare(`EXPLAIN QUERY PLAN ${sql}`)
          .bind(...bound)
          .all<{ detail: string }>();
        expect(results).toHaveLength(1);
        const columns = ["subject", "action"].filter((column) => filter[column as keyof AuditFilter] !== undefined);
        const name = columns.length === 2 ? "audit_by_subject_and_action" : `audit_by_${columns[0] ?? "time"}`;
        expect(results[0]!.detail).toMatch(new RegExp(`^SEARCH audit USING INDEX ${name} \\(.*at_ms`));
        for (const column of columns) expect(results[0]!.detail).toContain(`${column}=?`);
        expect(results[0]!.detail).toMatch(after === null ? /at_ms<\?\)/ : /\(at_ms,id\)<\(\?,\?\)\)/);
      }
    },
  );

  test("says nothing to whoever may not read it, whatever cursor it makes up", async () => {
    const agent: Agent = await register();
    const real = (await page({ limit: 1 })).nextCursor;
    for (const cursor of [undefined, real, "1-01K00000000000000000000000", "nonsense"])
      expect(await codeOf(agent, "audit/list", { cursor })).toBe("PROXY_AUTH_FORBIDDEN");
  });

  test("refuses what is no filter", async () => {
    for (const bad of [
      { sinceMs: -1 },
      { untilMs: "now" },
      { sinceMs: 1.5 },
      { cursor: "x" },
      { subject: "" },
      { limit: 0 },
      { limit: 101 },
    ])
      expect(await codeOf(operator, "audit/list", bad), JSON.stringify(bad)).toBe("PROXY_BAD_REQUEST");
  });
});
