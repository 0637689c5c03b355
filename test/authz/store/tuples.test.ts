import { env } from "cloudflare:workers";
import { commitFenced, runBatch } from "../../../src/database/batch.ts";
import { beforeEach, describe, expect, test } from "vitest";
import type { Tuple } from "../../../src/authz/engine/tuple.ts";
import {
  deleteTuples,
  deleteTuplesOf,
  isSecondTenant,
  readTuples,
  TupleNotAllowed,
  writeTuples,
} from "../../../src/authz/store/tuples.ts";

const ann = { object: "task:1", relation: "owner", subject: "user:ann" };
const bob = { object: "task:1", relation: "viewer", subject: "user:bob" };
const eng = { object: "task:1", relation: "viewer", subject: "group:eng#member" };
const home = { object: "task:1", relation: "tenant", subject: "tenant:home" };

const stored = async (): Promise<Tuple[]> => {
  const read = await readTuples(env.DB, {}, { limit: 1_000 });
  if (!read.ok) throw new Error(read.error);
  return read.value.tuples;
};

beforeEach(async () => {
  await env.DB.prepare("DELETE FROM relationships").run();
});

describe("writing and deleting", () => {
  test("a tuple written twice stands once, and a deletion of what does not stand is no error", async () => {
    await runBatch(env.DB, writeTuples([ann, eng], { nowMs: 1 }));
    await runBatch(env.DB, writeTuples([ann, bob], { nowMs: 2 }));
    expect(await stored()).toEqual([ann, eng, bob]);
    await runBatch(env.DB, deleteTuples([ann, { ...ann, subject: "user:nobody" }]));
    expect(await stored()).toEqual([eng, bob]);
  });

  test("a userset and its object are different subjects", async () => {
    const member = { object: "group:all", relation: "member", subject: "group:eng#member" };
    await runBatch(env.DB, writeTuples([member], { nowMs: 1 }));
    await runBatch(env.DB, deleteTuples([{ ...member, subject: "group:eng" }]));
    expect(await stored()).toEqual([member]);
  });

  test("a hundred tuples are one statement, and three thousand all arrive", async () => {
    const many = Array.from({ length: 3_000 }, (_, index) => ({ ...bob, subject: `user:${index}` }));
    expect(writeTuples(many.slice(0, 100), { nowMs: 1 })).toHaveLength(1);
    expect(writeTuples([], { nowMs: 1 })).toHaveLength(0);
    await runBatch(env.DB, writeTuples(many, { nowMs: 1 }));
    expect(await env.DB.prepare("SELECT count(*) AS n FROM relationships").first("n")).toBe(3_000);
    await runBatch(env.DB, deleteTuples(many));
    expect(await stored()).toEqual([]);
  });

  test("what the model does not allow is never written", async () => {
    const wildcard = { ...bob, subject: "user:*" };
    expect(() => writeTuples([ann, wildcard], { nowMs: 1 })).toThrow(TupleNotAllowed);
    expect(() => deleteTuples([{ ...ann, subject: "nonsense" }])).toThrow(TupleNotAllowed);
    expect(await stored()).toEqual([]);
  });

  test("a second tenant of an object is refused by the database, and nothing of its batch stays", async () => {
    await runBatch(env.DB, writeTuples([home], { nowMs: 1 }));
    await runBatch(env.DB, writeTuples([home], { nowMs: 2 }));
    const away = { ...home, subject: "tenant:away" };
    const refused = await commitFenced(env.DB, null, writeTuples([ann, away], { nowMs: 3 }));
    expect(!refused.ok && isSecondTenant(refused.error)).toBe(true);
    expect(await stored()).toEqual([home]);
    await runBatch(env.DB, [...deleteTuples([home]), ...writeTuples([away], { nowMs: 4 })]);
    expect(await stored()).toEqual([away]);
  });

  test("a deleted object takes every tuple with it in which it stands", async () => {
    const parent = { object: "task:1", relation: "parent", subject: "agent:a" };
    const other = { object: "task:2", relation: "parent", subject: "agent:b" };
    const executor = { object: "agent:a", relation: "executor", subject: "agent:b" };
    const owner = { object: "agent:a", relation: "owner", subject: "user:ann" };
    await runBatch(env.DB, writeTuples([parent, other, executor, owner], { nowMs: 1 }));
    await runBatch(env.DB, deleteTuplesOf("agent:a"));
    expect(await stored()).toEqual([other]);
  });
});

describe("reading", () => {
  beforeEach(async () => {
    await runBatch(env.DB, writeTuples([ann, bob, eng, home, { ...ann, object: "task:2" }], { nowMs: 1 }));
  });

  test.each([
    [{}, 5],
    [{ object: "task:1" }, 4],
    [{ object: "task:" }, 5],
    [{ object: "task:1", relation: "viewer" }, 2],
    [{ subject: "user:ann" }, 2],
    [{ subject: "user:" }, 3],
    [{ subject: "group:eng#member" }, 1],
    [{ subject: "group:eng" }, 0],
    [{ object: "task:2", relation: "owner", subject: "user:ann" }, 1],
  ])("%j finds %i", async (filter, count) => {
    const read = await readTuples(env.DB, filter, { limit: 100 });
    expect(read.ok && read.value.tuples).toHaveLength(count);
    expect(read.ok && read.value.nextCursor).toBeUndefined();
  });

  test("pages hold every tuple once", async () => {
    const seen: Tuple[] = [];
    let cursor: string | undefined;
    do {
      // oxlint-disable-next-line no-await-in-loop -- pages follow one another
      const read = await readTuples(env.DB, {}, { limit: 2, ...(cursor === undefined ? {} : { cursor }) });
      if (!read.ok) throw new Error(read.error);
      seen.push(...read.value.tuples);
      cursor = read.value.nextCursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(await stored());
  });

  test.each([
    [{ object: "nonsense" }, undefined],
    [{ relation: "a b" }, undefined],
    [{ subject: "*" }, undefined],
    [{ object: ":" }, undefined],
    [{}, "nonsense"],
    [{}, "W10"],
    [{}, "*"],
  ])("filter %j with cursor %s is refused", async (filter, cursor) => {
    const read = await readTuples(env.DB, filter, { limit: 2, ...(cursor === undefined ? {} : { cursor }) });
    expect(read.ok).toBe(false);
  });
});
