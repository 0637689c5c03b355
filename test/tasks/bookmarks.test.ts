/** How fresh a list is within one request, and how fresh the answer says it was. */
import { env } from "cloudflare:workers";
import { beforeAll, expect, test } from "vitest";
import type { Bookmarks } from "../../src/database/session.ts";
import { runtimeOf } from "../../src/runtime.ts";
import { contextOf } from "../support/db-spy.ts";
import { type Agent, operator, register } from "../support/world.ts";

const OLD = `${"0".repeat(8)}-${"1".repeat(8)}-${"0".repeat(8)}-${"a".repeat(32)}`;
const MIDDLE = OLD.replace("1", "2");
const NEW = OLD.replace("1", "3");

const LISTS: [string, () => Agent | typeof operator][] = [
  ["task/list", () => agent],
  ["authz/read", () => operator],
  ["apikey/list", () => agent],
];

let agent: Agent;

beforeAll(async () => {
  agent = await register();
});

/** Runs a list whose sessions answer with a bookmark of their own. @returns where the session started */
async function listed(method: string, caller: Agent | typeof operator, bookmarks: Bookmarks, answered: string) {
  const started: (string | undefined)[] = [];
  const db = new Proxy(env.DB, {
    get(target, name) {
      if (name === "withSession") {
        return (constraint?: string) => {
          started.push(constraint);
          const session = target.withSession("first-primary");
          return { prepare: (sql: string) => session.prepare(sql), getBookmark: () => answered };
        };
      }
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? (member.bind(target) as unknown) : member;
    },
  });
  const reply = await runtimeOf(env).dispatcher.dispatch(
    { ...(await contextOf(caller, db)), bookmarks },
    "rpc",
    method,
    {},
  );
  expect(reply).toMatchObject({ ok: true });
  return started;
}

test.each(LISTS)(
  "%s after a write of the same batch sees that write, whatever the caller has seen before",
  async (method, caller) => {
    const bookmarks: Bookmarks = { given: OLD, latest: NEW };
    expect(await listed(method, caller(), bookmarks, MIDDLE)).toEqual([NEW]);
    expect(bookmarks.latest).toBe(NEW);
  },
);

test.each(LISTS)(
  "%s starts where the caller's own bookmark is the later one, and answers how far it saw",
  async (method, caller) => {
    const bookmarks: Bookmarks = { given: MIDDLE, latest: OLD };
    expect(await listed(method, caller(), bookmarks, NEW)).toEqual([MIDDLE]);
    expect(bookmarks.latest).toBe(NEW);
  },
);

test.each(LISTS)("%s without any bookmark reads at the primary", async (method, caller) => {
  const bookmarks: Bookmarks = { given: null, latest: null };
  expect(await listed(method, caller(), bookmarks, MIDDLE)).toEqual(["first-primary"]);
  expect(bookmarks.latest).toBe(MIDDLE);
});
