import { type Agent, register, OPERATOR_TOKEN } from "../../support/program/agents.ts";
import { asAgent } from "../devices.ts";
import { type HttpConnection, openHttpConnection } from "../http-connection.ts";
import { figure, interleave, ratioFigure, type Row } from "../row.ts";
import type { Served } from "../serve.ts";
import { median, pairedRatio } from "../statistics.ts";
import { requestBytes } from "../traffic.ts";

const WORKER = "test/bench/worker/counted.ts";
const SIZES = { thousand: 1_000, hundredThousand: 100_000, million: 1_000_000 };
const DEPTH_MAX = 10;
/** Checks in one round of one database. */
const CHECKS = 20;
const TASKS = 100_000;
/** Every so manieth of the tasks is the asker's. */
const OTHERS = 100;
const PAGE = 100;
/** Rows that one statement inserts. */
const ROWS_AT_ONCE = 100_000;

const INTO_TUPLES =
  "INSERT INTO relationships (object_type, object_id, relation, subject_type, subject_id, subject_relation, created_at_ms)";
const NUMBERS = "WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)";

const graph: Row = {
  name: "graph",
  about: `checks ${DEPTH_MAX} groups deep among a thousand, a hundred thousand and a million tuples, and round trips to the database`,
  long: true,
  builds: [WORKER],
  async run(bench) {
    const bundle = await bench.bundle(WORKER);
    const [thousand, hundredThousand, million] = await Promise.all([
      filled(bench.proxy({}, bundle), SIZES.thousand),
      filled(bench.proxy({}, bundle), SIZES.hundredThousand),
      filled(bench.proxy({}, bundle), SIZES.million),
    ]);
    const served = { thousand, hundredThousand, million };
    const lines: Record<keyof typeof SIZES, HttpConnection> = {
      thousand: await openHttpConnection(thousand.url),
      hundredThousand: await openHttpConnection(hundredThousand.url),
      million: await openHttpConnection(million.url),
    };
    const checks = await interleave(bench.rounds + 4, {
      thousand: () => timed(lines.thousand),
      hundredThousand: () => timed(lines.hundredThousand),
      million: () => timed(lines.million),
    });

    const trips: number[] = [];
    for (let depth = 1; depth <= DEPTH_MAX; depth++) {
      // oxlint-disable-next-line no-await-in-loop -- counted one after the other
      trips.push(await roundTripsOf(served.million, () => check(lines.million, depth)));
    }

    const { url } = served.hundredThousand;
    const asker = await register(url, "asker");
    await addTasks(served.hundredThousand, asker);
    const list = async (): Promise<void> => {
      const page = await asAgent<{ tasks: unknown[] }>(url, asker, "task/list", { limit: PAGE });
      if (page.tasks.length !== PAGE) throw new Error(`a page of ${page.tasks.length} tasks`);
    };
    // What an agent's first call costs once is not the list's.
    await list();
    const listTrips = await roundTripsOf(served.hundredThousand, list);
    for (const line of Object.values(lines)) line.close();

    return {
      figures: [
        figure("check p50 among 1 000", "ms", checks.thousand),
        figure("check p50 among 100 000", "ms", checks.hundredThousand),
        figure("check p50 among 1 000 000", "ms", checks.million),
        ratioFigure("a hundred thousand to a thousand", checks.hundredThousand, checks.thousand, "≤ 1.5"),
        ratioFigure("a million to a thousand", checks.million, checks.thousand, "≤ 1.5"),
        figure(`most round trips of a check, 1 to ${DEPTH_MAX} deep`, "", [Math.max(...trips)], "≤ 1"),
        figure(`round trips of a list of ${PAGE} among ${TASKS} tasks`, "", [listTrips], "≤ 3"),
      ],
      ratios: { checkMillionToThousand: pairedRatio(checks.million, checks.thousand).median },
    };
  },
};

/** Groups in one another down to the asker; half of the rest are members of the innermost, half of groups of a hundred. */
async function filled(starting: Promise<Served>, tuples: number): Promise<Served> {
  const served = await starting;
  const db = await served.database();
  const insert = db.prepare(`${INTO_TUPLES} VALUES ('group', ?, 'member', ?, ?, ?, 0)`);
  const chain = Array.from({ length: DEPTH_MAX }, (_, index) =>
    index === DEPTH_MAX - 1
      ? insert.bind(groupAt(index), "user", "asker", "")
      : insert.bind(groupAt(index), "group", groupAt(index + 1), "member"),
  );
  await db.batch(chain);
  for (let from = chain.length; from < tuples; from += ROWS_AT_ONCE) {
    // oxlint-disable-next-line no-await-in-loop -- the database has one writer
    await db
      .prepare(
        `${NUMBERS} ${INTO_TUPLES} SELECT 'group', CASE i % 2 WHEN 0 THEN '${groupAt(DEPTH_MAX - 1)}' ELSE 'group-' || (i / 200) END,
         'member', 'user', 'user-' || i, '', 0 FROM n`,
      )
      .bind(from, Math.min(tuples, from + ROWS_AT_ONCE))
      .run();
  }
  return served;
}

const groupAt = (index: number): string => `level-${index}`;

/** Tasks with the tuples that `task/create` writes, one in `OTHERS` of them the asker's. */
async function addTasks(served: Served, asker: Agent): Promise<void> {
  const db = await served.database();
  const { tenant } = (await db
    .prepare("SELECT subject_id AS tenant FROM relationships WHERE object_type = 'agent' AND relation = 'tenant'")
    .first<{ tenant: string }>()) ?? { tenant: "" };
  // 26 characters that stand in the order of their numbers.
  const id = "'01K' || printf('%023d', i)";
  const agent = `CASE i % ${OTHERS} WHEN 0 THEN ?3 ELSE ?3 || '-' || (i % ${OTHERS}) END`;
  const owner = `CASE i % ${OTHERS} WHEN 0 THEN ?4 ELSE ?4 || '-' || (i % ${OTHERS}) END`;
  const statements: [text: string, values: (string | number)[]][] = [
    [
      `${NUMBERS} INSERT INTO tasks (task_id, tenant_id, agent_did, status, params, metadata, created_at_ms, updated_at_ms, creator_user_id)
       SELECT ${id}, ?5, ${agent}, 'running', '{}', '{}', 0, 0, ${owner} FROM n`,
      [0, TASKS, asker.did, asker.ownerDid, tenant],
    ],
    [`${NUMBERS} ${INTO_TUPLES} SELECT 'task', ${id}, 'tenant', 'tenant', ?3, '', 0 FROM n`, [0, TASKS, tenant]],
    [
      `${NUMBERS} ${INTO_TUPLES} SELECT 'task', ${id}, 'parent', 'agent', ${agent}, '', 0 FROM n`,
      [0, TASKS, asker.did],
    ],
    [
      `${NUMBERS} ${INTO_TUPLES} SELECT 'task', ${id}, 'owner', 'user', ${owner.replaceAll("?4", "?3")}, '', 0 FROM n`,
      [0, TASKS, asker.ownerDid],
    ],
  ];
  for (const [text, values] of statements) {
    // oxlint-disable-next-line no-await-in-loop -- the database has one writer
    await db
      .prepare(text)
      .bind(...values)
      .run();
  }
}

/** Whether the asker is in the group so many levels above it, which it is. */
async function check(line: HttpConnection, depth: number): Promise<void> {
  const body = JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "authz/check",
    params: { subject: "user:asker", relation: "member", object: `group:${groupAt(DEPTH_MAX - depth)}` },
  });
  const headers = { Authorization: `Bearer ${OPERATOR_TOKEN}`, "Content-Type": "application/json" };
  const answer = await line.send(requestBytes("POST", "/rpc", headers, body));
  if (!answer.body.includes('"allowed":true')) throw new Error(`not allowed: ${answer.status} ${answer.body}`);
}

async function timed(line: HttpConnection): Promise<number> {
  const tookMs: number[] = [];
  for (let turn = 0; turn < CHECKS; turn++) {
    const beganAtMs = performance.now();
    // oxlint-disable-next-line no-await-in-loop -- alone on the line, so that the figure is the check's and no queue's
    await check(line, DEPTH_MAX);
    tookMs.push(performance.now() - beganAtMs);
  }
  return median(tookMs);
}

/** Round trips to D1 that requests make until what is asked has been answered. */
async function roundTripsOf(served: Served, ask: () => Promise<void>): Promise<number> {
  await counts(served);
  await ask();
  return (await counts(served)).roundTrips;
}

/** Since the last time it was asked. */
async function counts(served: Served): Promise<{ roundTrips: number }> {
  return (await (await fetch(`${served.url}/bench/counts`)).json()) as { roundTrips: number };
}

export default graph;
