import { env } from "cloudflare:workers";
import { beforeEach, describe, expect, test } from "vitest";
import { sallyportGraph as graph } from "../../../src/authz/store/graph.ts";
import type { Tuple } from "../../../src/authz/engine/tuple.ts";
import { runBatch } from "../../../src/database/batch.ts";
import { deleteTuples, writeTuples } from "../../../src/authz/store/tuples.ts";
import { countRoundTrips } from "./counted-database.ts";

const allowed = { ok: true, value: true };
const denied = { ok: true, value: false };

const home = [t("tenant:home#member@user:ann"), t("tenant:home#member@agent:a"), t("agent:a#tenant@tenant:home")];
const task = (id: string): Tuple[] => [t(`task:${id}#tenant@tenant:home`), t(`task:${id}#parent@agent:a`)];
const write = async (tuples: Tuple[]): Promise<void> => {
  await runBatch(env.DB, writeTuples(tuples, { nowMs: 1 }));
};
const readable = (subject: string): ReturnType<typeof graph.listObjects> =>
  graph.listObjects(env.DB, { type: "task", relation: "read", subject });
const ask = (relation: string, subject = "user:ann", object = "task:1"): ReturnType<typeof graph.check> =>
  graph.check(env.DB, { object, relation, subject });

beforeEach(async () => {
  await env.DB.prepare("DELETE FROM relationships").run();
});

describe("a check", () => {
  test("is one round trip through ten groups, and the answer follows each link", async () => {
    const chain = [
      t("task:1#editor@group:0#member"),
      ...Array.from({ length: 9 }, (_, index) => t(`group:${index}#member@group:${index + 1}#member`)),
      t("group:9#member@user:ann"),
    ];
    await write([...home, ...task("1"), ...chain]);
    const counted = countRoundTrips(env.DB);
    expect(await graph.check(counted.db, { object: "task:1", relation: "update", subject: "user:ann" })).toEqual(
      allowed,
    );
    expect(counted.trips()).toBe(1);
  });

  test("sees a removal at once, and a write at once", async () => {
    const share = t("task:1#viewer@user:ann");
    await write([...home, ...task("1"), share]);
    expect(await ask("read")).toEqual(allowed);
    await runBatch(env.DB, deleteTuples([share]));
    expect(await ask("read")).toEqual(denied);
    await write([share]);
    expect(await ask("read")).toEqual(allowed);
    await runBatch(env.DB, deleteTuples([t("tenant:home#member@user:ann")]));
    expect(await ask("read")).toEqual(denied);
  });

  test("passes a group of five thousand members without loading it", async () => {
    const members = Array.from({ length: 5_000 }, (_, index) => t(`group:all#member@user:${index}`));
    await write([
      ...home,
      ...task("1"),
      t("task:1#viewer@group:all#member"),
      ...members,
      t("group:all#member@user:ann"),
    ]);
    const rowsRead: number[] = [];
    const session = env.DB.withSession("first-primary");
    const measured = {
      prepare: (sql: string): D1PreparedStatement => {
        const statement = session.prepare(sql);
        return new Proxy(statement, {
          get: (target, name) =>
            name === "bind"
              ? (...values: unknown[]) => ({
                  raw: async () => {
                    const bound = target.bind(...values);
                    const { meta } = await bound.all();
                    rowsRead.push(meta.rows_read);
                    return bound.raw();
                  },
                })
              : (Reflect.get(target, name) as unknown),
        });
      },
      batch: session.batch.bind(session),
      getBookmark: session.getBookmark.bind(session),
    };
    expect(await graph.check(measured, { object: "task:1", relation: "read", subject: "user:ann" })).toEqual(allowed);
    expect(rowsRead).toHaveLength(1);
    expect(rowsRead[0]).toBeLessThan(500);
  });

  test("of a graph too large to read is an error, never an answer", async () => {
    const groups = Array.from({ length: 20_001 }, (_, index) => t(`task:1#viewer@group:${index}#member`));
    await write([...home, ...task("1"), ...groups, t("group:1#member@user:ann")]);
    expect(await ask("read")).toMatchObject({
      ok: false,
      error: { code: "authorization_model_resolution_too_complex" },
    });
  });

  test("counts contextual tuples, and what stored tuples they lead to", async () => {
    await write([...home, ...task("1"), t("group:eng#member@user:ann")]);
    const contextualTuples = [t("task:1#viewer@group:eng#member")];
    const request = { object: "task:1", relation: "read", subject: "user:ann" };
    expect(await graph.check(env.DB, { ...request, contextualTuples })).toEqual(allowed);
    expect(await graph.check(env.DB, request)).toEqual(denied);
  });

  test("outside the model is an error", async () => {
    expect(await ask("boss")).toMatchObject({ ok: false, error: { code: "validation_error" } });
    expect(await graph.listObjects(env.DB, { type: "folder", relation: "read", subject: "user:ann" })).toMatchObject({
      ok: false,
      error: { code: "type_not_found" },
    });
  });
});

describe("a list", () => {
  const ids = Array.from({ length: 300 }, (_, index) => `t${String(index).padStart(4, "0")}`);

  test("of a hundred among many is one round trip and goes on where it ended", async () => {
    await write([...home, t("agent:a#owner@user:ann"), ...ids.flatMap(task)]);
    const counted = countRoundTrips(env.DB);
    const request = { type: "task", relation: "read", subject: "user:ann" };
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      // oxlint-disable-next-line no-await-in-loop -- pages follow one another
      const page = await graph.listObjects(counted.db, request, {
        limit: 100,
        ...(cursor === undefined ? {} : { cursor }),
      });
      if (!page.ok) throw new Error(page.error.reason);
      expect(page.value.objects.length).toBeLessThanOrEqual(100);
      seen.push(...page.value.objects);
      cursor = page.value.nextCursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(ids.map((id) => `task:${id}`));
    expect(counted.trips()).toBe(3);
  });

  test("passes a task that many groups name, and finds what follows it", async () => {
    const groups = Array.from({ length: 60 }, (_, index) => `group:${index}`);
    await write([
      ...home,
      ...["1", "2"].flatMap(task),
      ...groups.flatMap((group) => [t(`task:1#viewer@${group}#member`), t(`${group}#member@user:ann`)]),
      t("task:2#viewer@user:ann"),
    ]);
    const page = await graph.listObjects(env.DB, { type: "task", relation: "read", subject: "user:ann" }, { limit: 5 });
    expect(page).toEqual({ ok: true, value: { objects: ["task:1", "task:2"] } });
  });

  test("leaves out what the tenant gate refuses, and still fills its page", async () => {
    const strange = ids.flatMap((id) => [t(`task:${id}#tenant@tenant:away`), t(`task:${id}#viewer@user:ann`)]);
    await write([...home, ...strange, ...task("zz"), t("task:zz#viewer@user:ann")]);
    const page = await graph.listObjects(
      env.DB,
      { type: "task", relation: "read", subject: "user:ann" },
      { limit: 50 },
    );
    expect(page).toEqual({ ok: true, value: { objects: ["task:zz"] } });
  });

  test("follows nothing for what the tenant gate refuses, however much that would be", async () => {
    const strange = ids.flatMap((id) => [
      t(`task:${id}#tenant@tenant:away`),
      t(`task:${id}#viewer@user:ann`),
      ...Array.from({ length: 100 }, (_, index) => t(`task:${id}#viewer@group:${index}-${id}#member`)),
    ]);
    await write([...home, ...strange, ...task("zz"), t("task:zz#viewer@user:ann")]);
    const request = { type: "task", relation: "read", subject: "user:ann" };
    const counted = countRoundTrips(env.DB);
    expect(await graph.listObjects(counted.db, request)).toEqual({ ok: true, value: { objects: ["task:zz"] } });
    expect(counted.trips()).toBe(1);
  });

  test("passes a gate that a contextual tuple opens, and no further one by it", async () => {
    await write([...task("1"), ...task("2"), t("task:1#viewer@user:bob"), t("agent:a#tenant@tenant:home")]);
    const request = { type: "task", relation: "read", subject: "user:bob" };
    const contextualTuples = [t("tenant:home#member@user:bob")];
    expect(await graph.listObjects(env.DB, request)).toEqual({ ok: true, value: { objects: [] } });
    expect(await graph.listObjects(env.DB, { ...request, contextualTuples })).toEqual({
      ok: true,
      value: { objects: ["task:1"] },
    });
    expect(await graph.listObjects(env.DB, request)).toEqual({ ok: true, value: { objects: [] } });
  });

  test("decides in parts what is too complex together, and leaves out alone what is too complex alone, where it is lenient", async () => {
    const dozen = Array.from({ length: 12 }, (_, index) => `t${String(index).padStart(2, "0")}`);
    await write([
      ...home,
      ...dozen.flatMap(task),
      ...dozen.map((id) => t(`task:${id}#viewer@user:ann`)),
      ...Array.from({ length: 6_000 }, (_, index) => `g${index}`).flatMap((group) =>
        ["t00", "t01", "t02", "t11"].map((id) => t(`task:${id}#viewer@group:${id}-${group}#member`)),
      ),
    ]);
    const request = { type: "task", relation: "read", subject: "user:ann" };
    const all = dozen.map((id) => `task:${id}`);
    expect(await graph.listObjects(env.DB, request)).toEqual({ ok: true, value: { objects: all } });

    await write(Array.from({ length: 15_000 }, (_, index) => t(`task:t01#viewer@group:more-${index}#member`)));
    const counted = countRoundTrips(env.DB);
    expect(await graph.listObjects(counted.db, request, { lenient: true })).toEqual({
      ok: true,
      value: { objects: all.filter((object) => object !== "task:t01") },
    });
    expect(counted.trips()).toBeLessThan(12);
    expect(await graph.listObjects(env.DB, request)).toMatchObject({
      ok: false,
      error: { code: "authorization_model_resolution_too_complex" },
    });
  });

  test("finds what groups in groups, direct shares and the parent agent give, each once", async () => {
    await write([
      ...home,
      ...["1", "2", "3", "4", "5"].flatMap(task),
      t("task:1#viewer@group:all#member"),
      t("group:all#member@group:eng#member"),
      t("group:eng#member@user:ann"),
      t("task:1#editor@user:ann"),
      t("task:2#owner@user:ann"),
      t("task:3#viewer@user:bob"),
    ]);
    expect(await readable("user:ann")).toEqual({ ok: true, value: { objects: ["task:1", "task:2"] } });
    expect(await readable("agent:a")).toMatchObject({ ok: true, value: { objects: { length: 5 } } });
    expect(await readable("user:bob")).toEqual({ ok: true, value: { objects: [] } });
  });
});

describe("an explanation", () => {
  test("names the tuples that allowed, from the task to the caller", async () => {
    await write([...home, ...task("1"), t("task:1#viewer@group:eng#member"), t("group:eng#member@user:ann")]);
    expect(await graph.explain(env.DB, { object: "task:1", relation: "read", subject: "user:ann" })).toEqual({
      ok: true,
      value: {
        allowed: true,
        path: [
          "task:1#viewer@group:eng#member",
          "group:eng#member@user:ann",
          "task:1#tenant@tenant:home",
          "tenant:home#member@user:ann",
        ],
        missing: [],
      },
    });
  });

  test("names what was missing", async () => {
    await write([...home, ...task("1"), t("task:1#owner@user:eve")]);
    const explained = await graph.explain(env.DB, { object: "task:1", relation: "cancel", subject: "user:eve" });
    expect(explained).toEqual({
      ok: true,
      value: {
        allowed: false,
        path: [],
        missing: ["no tuple of tenant:home#member leads to user:eve"],
      },
    });
  });
});

function t(text: string): Tuple {
  const at = text.indexOf("@");
  const hash = text.indexOf("#");
  return { object: text.slice(0, hash), relation: text.slice(hash + 1, at), subject: text.slice(at + 1) };
}
