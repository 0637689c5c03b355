import { describe, expect, test } from "vitest";
import { engineId, tuplesOf } from "../../../src/authz/sync/engine-tuples.ts";
import { createOpenFga } from "../../../src/authz/sync/openfga.ts";
import { type GraphChange, REMOTE_TIMEOUT_MS, type RemoteGraphDeps } from "../../../src/authz/sync/remote-call.ts";
import { isRefusedPermanently } from "../../../src/authz/sync/outbox.ts";
import { createSpiceDb } from "../../../src/authz/sync/spicedb.ts";
import { silentLog } from "../../support/silent-log.ts";

type Sent = { path: string; authorization: string | null; body: Record<string, unknown> };
type Deed = { status: number; body: unknown } | "silence";

const AGENT = "agent:did:cdi:agents.example.com:agent:01ARZ3NDEKTSV4RRFFQ69G5FAV";
const QUESTION = { subject: AGENT, relation: "read", object: "task:1" };
const SHARE: GraphChange = { op: "register", object: "task:1", principal: AGENT, parent: AGENT, relation: "viewer" };
const UNSHARE: GraphChange = { ...SHARE, op: "deregister" };

const ENGINES = {
  openfga: {
    create: createOpenFga,
    yes: { allowed: true },
    no: { allowed: false },
    bulk: (verdicts: boolean[]) => ({
      result: Object.fromEntries(verdicts.map((allowed, index) => [String(index), { allowed }])),
    }),
    taken: {},
  },
  spicedb: {
    create: createSpiceDb,
    yes: { permissionship: "PERMISSIONSHIP_HAS_PERMISSION" },
    no: { permissionship: "PERMISSIONSHIP_NO_PERMISSION" },
    bulk: (verdicts: boolean[]) => ({
      pairs: verdicts.map((allowed) => ({
        item: { permissionship: `PERMISSIONSHIP_${allowed ? "HAS" : "NO"}_PERMISSION` },
      })),
    }),
    taken: { writtenAt: { token: "t" } },
  },
} as const;

/** An engine that does one deed after the other, and the last again and again. */
function engineThat(name: keyof typeof ENGINES, deeds: readonly Deed[], extra: Partial<RemoteGraphDeps> = {}) {
  const sent: Sent[] = [];
  const graph = ENGINES[name].create({
    url: "https://engine.example",
    token: "secret",
    settings: { breakerFailures: 5, breakerWindowMs: 60_000, breakerOpenMs: 30_000 },
    async fetch(url, init) {
      const deed = deeds[Math.min(sent.length, deeds.length - 1)] ?? { status: 500, body: null };
      sent.push({
        path: new URL(url).pathname,
        authorization: new Headers(init.headers).get("Authorization"),
        body: JSON.parse(init.body as string) as Record<string, unknown>,
      });
      if (deed === "silence")
        return new Promise<Response>((_, reject) =>
          init.signal?.addEventListener("abort", () => reject(new Error("aborted"))),
        );
      return new Response(typeof deed.body === "string" ? deed.body : JSON.stringify(deed.body), {
        status: deed.status,
      });
    },
    now: () => 0,
    pause: async () => {},
    random: () => 0,
    log: silentLog,
    count: () => {},
    ...extra,
  });
  return { graph, sent };
}

const NAMES = ["openfga", "spicedb"] as const;

describe.each(NAMES)("%s", (name) => {
  const { yes, no, bulk, taken } = ENGINES[name];

  test("says yes by its yes and no by its no, asked past its caches with the token", async () => {
    const { graph, sent } = engineThat(name, [
      { status: 200, body: yes },
      { status: 200, body: no },
    ]);
    expect(await graph.check(QUESTION)).toEqual({ ok: true, value: true });
    expect(await graph.check(QUESTION)).toEqual({ ok: true, value: false });
    expect(sent[0]?.authorization).toBe("Bearer secret");
    expect(sent[0]?.body["consistency"]).toEqual(name === "openfga" ? "HIGHER_CONSISTENCY" : { fullyConsistent: true });
  });

  test.each<[string, number, unknown]>([
    ["nothing", 200, ""],
    ["no JSON", 200, "yes"],
    ["another type", 200, { allowed: "true", permissionship: 2 }],
    ["a condition without its context", 200, { permissionship: "PERMISSIONSHIP_CONDITIONAL_PERMISSION" }],
    ["a list", 200, [yes]],
    ["a yes with another status", 202, yes],
    ["400", 400, yes],
    ["403", 403, yes],
    ["404", 404, yes],
    ["500", 500, yes],
  ])("%s is no yes", async (_, status, body) => {
    const { graph } = engineThat(name, [{ status, body }]);
    expect((await graph.check(QUESTION)).ok).toBe(false);
    expect((await graph.checkMany?.([QUESTION]))?.ok).toBe(false);
  });

  test("answers many questions in their order, and none of them where one has no answer", async () => {
    const questions = Array.from({ length: 3 }, () => QUESTION);
    const answered = engineThat(name, [{ status: 200, body: bulk([true, false, true]) }]);
    expect(await answered.graph.checkMany?.(questions)).toEqual({ ok: true, value: [true, false, true] });
    const short = engineThat(name, [{ status: 200, body: bulk([true, false]) }]);
    expect((await short.graph.checkMany?.(questions))?.ok).toBe(false);
  });

  test.each([400, 404])("a register that it answers with %d is parked, a removal is not", async (status) => {
    const { graph } = engineThat(name, [{ status, body: { code: "nothing_here" } }]);
    const registered = await graph.apply(SHARE, 1);
    const removed = await graph.apply(UNSHARE, 2);
    if (registered.ok || removed.ok) throw new Error("taken");
    expect(isRefusedPermanently(SHARE, registered.error)).toBe(true);
    expect(isRefusedPermanently(UNSHARE, removed.error)).toBe(false);
  });

  test.each([409, 429, 500, 503])("a register that it answers with %d is tried again later", async (status) => {
    const { graph } = engineThat(name, [{ status, body: {} }]);
    const registered = await graph.apply(SHARE, 1);
    if (registered.ok) throw new Error("taken");
    expect(isRefusedPermanently(SHARE, registered.error)).toBe(false);
  });

  test("a removal that it has taken and that still stands is not made", async () => {
    const standing =
      name === "openfga"
        ? { tuples: [{ key: { user: "agent:a", relation: "viewer", object: "task:b" } }] }
        : { result: { relationship: {} } };
    const { graph } = engineThat(name, [
      { status: 200, body: taken },
      { status: 200, body: standing },
    ]);
    expect(await graph.apply(UNSHARE, 1)).toEqual({ ok: false, error: "still_granted" });
  });

  test("an answer that does not end in its time is no yes", { timeout: REMOTE_TIMEOUT_MS * 6 }, async () => {
    const { graph } = engineThat(name, ["silence"]);
    expect(await graph.check(QUESTION)).toEqual({ ok: false, error: "timeout" });
  });
});

test("ids reach an engine in characters that both take", () => {
  expect(engineId("did:cdi:a.example:agent:1")).toMatch(/^[A-Za-z0-9_-]+$/u);
  expect(engineId("did:cdi:a.example:agent:1")).not.toBe(engineId("did:cdi:a.example:agent:2"));
});

test("an agent, a task and a service account come with the tuples that hold them in their tenant", () => {
  const agent = { op: "register", object: AGENT, principal: "user:o", parent: "tenant:t", relation: null } as const;
  expect(tuplesOf(agent)).toHaveLength(5);
  const task = { op: "register", object: "task:1", principal: "user:o", parent: AGENT, relation: null } as const;
  expect(tuplesOf({ ...task, tenantId: "t" })).toEqual([
    { object: "task:1", relation: "tenant", subject: "tenant:t" },
    { object: "task:1", relation: "parent", subject: AGENT },
    { object: "task:1", relation: "owner", subject: "user:o" },
  ]);
  expect(tuplesOf({ ...agent, principal: "service_account:s", relation: "executor" })).toHaveLength(2);
});
