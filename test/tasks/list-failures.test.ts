/** What a list answers when it cannot be made. */
import { env } from "cloudflare:workers";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { runtimeOf } from "../../src/runtime.ts";
import { type Agent, createTask, register } from "../support/world.ts";
import { contextOf } from "../support/db-spy.ts";

let agent: Agent;

beforeAll(async () => {
  agent = await register();
  await createTask(agent, { agentDid: agent.did });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

test("a list whose graph is out of reach is AUTHZ_UNAVAILABLE and may be tried again, as any other call", async () => {
  const settings = { ...env, AUTHZ_GRAPH: "https://authz.example" } as unknown as Env;
  vi.stubGlobal("fetch", async () => new Response(null, { status: 500 }));
  const ctx = await contextOf(agent, env.DB, { settings });
  const dispatch = (method: string, params: unknown) =>
    runtimeOf(settings).dispatcher.dispatch(ctx, "rpc", method, params);
  const listed = await dispatch("task/list", {});
  expect(listed).toMatchObject({ ok: false, code: "AUTHZ_UNAVAILABLE", retryAfterMs: 1_000 });
  const looked = await dispatch("task/get", { taskName: "n" });
  expect(listed).toEqual(looked);
});

test.each([0, 1, 2])("a list whose read %d D1 does not answer is PROXY_AUTH_DEPENDENCY_UNAVAILABLE", async (broken) => {
  const failing = new Proxy(env.DB, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (name !== "withSession") return typeof member === "function" ? (member.bind(target) as unknown) : member;
      return () => {
        const session = target.withSession("first-primary");
        let prepared = 0;
        return {
          prepare(sql: string) {
            prepared += 1;
            return session.prepare(prepared - 1 === broken ? sql.replace("WITH", "WITHOUT") : sql);
          },
          getBookmark: () => session.getBookmark(),
        };
      };
    },
  });
  const ctx = await contextOf(agent, failing);
  const reply = await runtimeOf(env).dispatcher.dispatch(ctx, "rpc", "task/list", {});
  expect(reply).toMatchObject({ ok: false, code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE" });
});
