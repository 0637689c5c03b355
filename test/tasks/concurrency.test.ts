/** What meets on one task or key: whoever comes second finds it gone, leaves nothing behind, and is not in the audit. */
import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import type { Reply } from "../../src/call/reply.ts";
import { runtimeOf } from "../../src/runtime.ts";
import { contextOf } from "../support/db-spy.ts";
import {
  admit,
  type Agent,
  apiKeyOf,
  createTask,
  operator,
  register,
  result,
  rows,
  tuplesOf,
} from "../support/world.ts";

let agent: Agent;
beforeAll(async () => {
  agent = await register();
  await admit(agent, "user:bob");
}, 60_000);

/** A database in which something else is committed between what a call reads and what it writes. */
function overtaken(by: () => Promise<unknown>): D1Database {
  let overtaking: Promise<unknown> | null = null;
  return new Proxy(env.DB, {
    get(target, name) {
      if (name === "withSession") {
        return (constraint?: string) => {
          const session = target.withSession(constraint);
          return {
            prepare: (sql: string) => session.prepare(sql),
            getBookmark: () => session.getBookmark(),
            async batch(statements: D1PreparedStatement[]) {
              overtaking ??= by();
              await overtaking;
              return session.batch(statements);
            },
          };
        };
      }
      const member: unknown = Reflect.get(target, name);
      return typeof member === "function" ? (member.bind(target) as unknown) : member;
    },
  });
}

async function callOvertaken(method: string, params: unknown, by: () => Promise<unknown>): Promise<Reply> {
  return runtimeOf(env).dispatcher.dispatch(await contextOf(agent, overtaken(by)), "rpc", method, params);
}

const auditOf = async (subject: string): Promise<string[]> =>
  (
    await rows<{ entry: string }>(
      "SELECT action || ' ' || actor AS entry FROM audit WHERE subject = ?1 ORDER BY rowid",
      subject,
    )
  ).map(({ entry }) => entry);

describe("a task that is deleted while somebody else", () => {
  test.each([
    ["shares it", "task/share", { subject: "user:bob", relation: "viewer" }],
    ["takes a share back", "task/unshare", { subject: "user:bob", relation: "viewer" }],
    ["deletes it too", "task/delete", {}],
  ])("%s does not exist for them, and no tuple or audit entry speaks of it", async (_name, method, extra) => {
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    const reply = await callOvertaken(method, { taskId, ...extra }, () => result(operator, "task/delete", { taskId }));
    const missing = await runtimeOf(env).dispatcher.dispatch(await contextOf(agent, env.DB), "rpc", method, {
      taskId,
      ...extra,
    });
    expect(reply).toMatchObject({ ok: false, code: "PROXY_NOT_FOUND" });
    expect(reply).toEqual(missing);
    expect(await tuplesOf(`task:${taskId}`)).toEqual([]);
    expect(await auditOf(`task:${taskId}`)).toEqual([`task.create agent:${agent.did}`, "task.delete operator"]);
  });
});

describe("the audit", () => {
  test("has a share once and its end once, however often either is asked for", async () => {
    const { taskId } = await createTask(agent, { agentDid: agent.did });
    const share = { taskId, subject: "user:bob", relation: "viewer" };
    for (const method of ["task/unshare", "task/share", "task/share", "task/unshare", "task/unshare"]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await result(agent, method, share)).toEqual(share);
    }
    const entries = await auditOf(`task:${taskId}`);
    expect(entries).toEqual(["create", "share", "unshare"].map((what) => `task.${what} agent:${agent.did}`));
  });

  test("has the end of a key once, though two asked for it at the same moment", async () => {
    const { apiKeyId } = await apiKeyOf(agent, ["tasks:read"]);
    const params = { apiKeyId };
    const reply = await callOvertaken("apikey/delete", params, () => result(operator, "apikey/delete", params));
    expect(reply).toMatchObject({ ok: true });
    expect(await auditOf(`apikey:${apiKeyId}`)).toEqual(["apikey.create operator", "apikey.delete operator"]);
  });
});
