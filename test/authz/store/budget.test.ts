/** What one list may cost, however its groups are built. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { CALL_LIMITS, createBudget } from "../../../src/authz/store/budget.ts";
import { sallyportGraph as graph } from "../../../src/authz/store/graph.ts";
import { codeOf, createTask, operator, register, result } from "../../support/world.ts";
import { countRoundTrips } from "./counted-database.ts";

const GROUPS = 20_000;
/** Each of them leads to all the groups, so no two can be decided together, nor one alone. */
const HEAVY = 8;

const rowsOf = (select: string): Promise<unknown> =>
  env.DB.prepare(
    `INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${GROUPS}) ${select}`,
  ).run();

beforeAll(async () => {
  await rowsOf("SELECT 'group', 'all', 'member', 'group', 'part-' || i, 'member', 0 FROM n");
  await rowsOf("SELECT 'group', 'all', 'member', 'user', 'ann', '', 0 FROM n WHERE i = 1");
  await rowsOf("SELECT 'tenant', 'home', 'member', 'user', 'ann', '', 0 FROM n WHERE i = 1");
  await rowsOf(`SELECT 'task', 'heavy-' || i, 'viewer', 'group', 'all', 'member', 0 FROM n WHERE i <= ${HEAVY}`);
  await rowsOf(`SELECT 'task', 'heavy-' || i, 'tenant', 'tenant', 'home', '', 0 FROM n WHERE i <= ${HEAVY}`);
  await rowsOf("SELECT 'task', 'light', 'tenant', 'tenant', 'home', '', 0 FROM n WHERE i = 1");
  await rowsOf("SELECT 'task', 'light', 'viewer', 'user', 'ann', '', 0 FROM n WHERE i = 1");
});

const question = { type: "task", relation: "read", subject: "user:ann" };

describe("a list by a member of a group of 20,000 groups", () => {
  test("ends within the budget of one call, and goes on where it stopped", async () => {
    let cursor: string | undefined;
    let pages = 0;
    const objects: string[] = [];
    do {
      const { db, trips } = countRoundTrips(env.DB);
      let entries = 0;
      const budget = createBudget();
      const counted = {
        ...budget,
        spend: (spent: number): void => {
          entries += spent;
          budget.spend(spent);
        },
      };
      const page = { lenient: true, budget: counted, ...(cursor === undefined ? {} : { cursor }) };
      // oxlint-disable-next-line no-await-in-loop -- page after page
      const listed = await graph.listObjects(db, question, page);
      if (!listed.ok) throw new Error(listed.error.reason);
      expect(trips()).toBeLessThanOrEqual(CALL_LIMITS.statements);
      // The last statement may go beyond it by what one statement may read.
      expect(entries).toBeLessThan(CALL_LIMITS.entries + 100_000);
      objects.push(...listed.value.objects);
      cursor = listed.value.nextCursor;
      pages += 1;
    } while (cursor !== undefined && pages <= HEAVY);
    expect(objects).toEqual(["task:light"]);
  });

  test("is an error that says so where nothing may be left out", async () => {
    const { db, trips } = countRoundTrips(env.DB);
    const listed = await graph.listObjects(db, question);
    expect(listed).toMatchObject({ ok: false, error: { code: "authorization_model_resolution_too_complex" } });
    expect(trips()).toBeLessThanOrEqual(8);
  });
});

test("a budget that ends before anything was decided is an error that names its bounds", async () => {
  const listed = await graph.listObjects(env.DB, question, { budget: createBudget({ statements: 1, entries: 10 }) });
  expect(listed).toMatchObject({ ok: false, error: { reason: expect.stringContaining("1 statements or 10 entries") } });
});

test("task/list: a subject that leads to too many groups is told so, and not to try again in a moment", async () => {
  const agent = await register();
  await createTask(agent, { agentDid: agent.did });
  await rowsOf(`SELECT 'group', 'of-many-' || i, 'member', 'agent', '${agent.did}', '', 0 FROM n`);
  expect(await codeOf(agent, "task/list", {})).toBe("PROXY_BAD_REQUEST");
  expect(
    await codeOf(operator, "authz/list_objects", { subject: `agent:${agent.did}`, relation: "read", type: "task" }),
  ).toBe("PROXY_BAD_REQUEST");
  expect((await result(operator, "task/list", { agentDid: agent.did }))["tasks"]).toHaveLength(1);
});
