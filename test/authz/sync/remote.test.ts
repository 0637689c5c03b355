import { describe, expect, test } from "vitest";
import { createRemoteGraph } from "../../../src/authz/sync/service.ts";
import {
  EXCEPTION_CLASSES,
  type GraphChange,
  REMOTE_TIMEOUT_MS,
  type RemoteGraph,
} from "../../../src/authz/sync/remote-call.ts";
import { silentLog } from "../../support/silent-log.ts";

type Sent = { path: string; body: unknown };
/** What the service does with one attempt: a status, a broken connection, or nothing at all. */
type Deed = number | "reset" | "silence" | { status: number; body: string };

const NO: Deed = { status: 200, body: '{"allowed":false}' };
const YES: Deed = { status: 200, body: '{"allowed":true}' };

/** @param readBack what it answers to questions; null: they are deeds like others */
function serviceThat(deeds: readonly Deed[], breakerFailures = 5, readBack: Deed | null = null) {
  const sent: Sent[] = [];
  const readBacks: Sent[] = [];
  const pauses: number[] = [];
  const counted: string[] = [];
  let nowMs = 0;
  const graph: RemoteGraph = createRemoteGraph({
    url: "https://authz.example",
    settings: { breakerFailures, breakerWindowMs: 60_000, breakerOpenMs: 30_000 },
    async fetch(url, init) {
      const isReadBack = readBack !== null && url.endsWith("/check");
      const deed = isReadBack ? readBack : (deeds[Math.min(sent.length, deeds.length - 1)] ?? 200);
      (isReadBack ? readBacks : sent).push({ path: new URL(url).pathname, body: JSON.parse(init.body as string) });
      if (deed === "reset") throw new TypeError("connection reset");
      if (deed === "silence")
        return new Promise<Response>((_, reject) =>
          init.signal?.addEventListener("abort", () => reject(new Error("aborted"))),
        );
      return typeof deed === "number"
        ? new Response(null, { status: deed })
        : new Response(deed.body, { status: deed.status });
    },
    now: () => nowMs,
    pause: async (ms) => void pauses.push(ms),
    random: () => 0,
    log: silentLog,
    count(name, labels) {
      if (name.startsWith("task_fgac_dual_write_")) counted.push([name.slice(21), ...Object.values(labels)].join(" "));
    },
  });
  return { graph, sent, readBacks, pauses, counted, pass: (ms: number) => void (nowMs += ms) };
}

const register: GraphChange = {
  op: "register",
  object: "task:1",
  principal: "user:anne",
  parent: "agent:a",
  relation: null,
};
const deregister: GraphChange = { ...register, op: "deregister", principal: null };

describe.each([register, deregister])("$op", (change) => {
  test("tells the service who, what and under whom", async () => {
    const { graph, sent } = serviceThat([200], 5, NO);
    expect(await graph.apply(change, 7)).toEqual({ ok: true, value: undefined });
    expect(sent).toEqual([
      {
        path: `/v1/authz/${change.op}`,
        body: { principal: change.principal, resource: { type: "task", selector: "1" }, parent: "agent:a", version: 7 },
      },
    ]);
  });

  test.each<[Deed, string]>([
    [502, "http_502"],
    [503, "http_503"],
    [504, "http_504"],
    ["reset", "connection"],
  ])("is tried again after %s, and succeeds", async (deed) => {
    const { graph, sent, pauses } = serviceThat([deed, deed, deed, 204], 5, NO);
    expect((await graph.apply(change, 7)).ok).toBe(true);
    expect(sent).toHaveLength(4);
    expect(pauses).toEqual([200, 400, 800]);
  });

  test.each<[Deed, string]>([
    [502, "http_502"],
    [503, "http_503"],
    [504, "http_504"],
    ["reset", "connection"],
  ])("is given up after four attempts that end in %s", async (deed, exceptionClass) => {
    const { graph, sent } = serviceThat([deed], 5, NO);
    expect(await graph.apply(change, 7)).toEqual({ ok: false, error: exceptionClass });
    expect(sent).toHaveLength(4);
  });

  test.each<[number, string]>([
    [400, "http_4xx"],
    [401, "http_401"],
    [409, "http_4xx"],
    [429, "http_429"],
    [500, "http_5xx"],
    [501, "http_5xx"],
    [302, "unexpected_answer"],
  ])("is not tried again after %d", async (status, exceptionClass) => {
    const { graph, sent } = serviceThat([status], 5, NO);
    expect(await graph.apply(change, 7)).toEqual({ ok: false, error: exceptionClass });
    expect(sent).toHaveLength(1);
    expect(EXCEPTION_CLASSES).toContain(exceptionClass);
  });
});

test(
  "an attempt that is not answered in its time is a time-out, and tried again",
  { timeout: REMOTE_TIMEOUT_MS * 3 },
  async () => {
    const { graph, sent } = serviceThat(["silence", 200], 5, NO);
    expect((await graph.apply(register, 7)).ok).toBe(true);
    expect(sent).toHaveLength(2);
  },
);

describe("a removal", () => {
  const removal: GraphChange = { ...register, op: "deregister", relation: "viewer" };

  test("is made when the service says that the grant does not stand", async () => {
    const { graph, readBacks } = serviceThat([200], 5, NO);
    expect(await graph.apply(removal, 7)).toEqual({ ok: true, value: undefined });
    expect(readBacks).toEqual([
      {
        path: "/v1/authz/check",
        body: { principal: "user:anne", resource: { type: "task", selector: "1" }, operation: "viewer" },
      },
    ]);
  });

  test.each<[Deed, Deed, unknown]>([
    [200, YES, { ok: false, error: "still_granted" }],
    [404, NO, { ok: true, value: undefined }],
    [404, 403, { ok: true, value: undefined }],
    [404, YES, { ok: false, error: "still_granted" }],
    // Of a route that is being deployed the service says nothing.
    [404, 404, { ok: false, error: "http_404" }],
    [404, 200, { ok: false, error: "http_404" }],
    [404, 400, { ok: false, error: "http_404" }],
    [200, 500, { ok: false, error: "http_5xx" }],
    [200, 503, { ok: false, error: "http_503" }],
    // It has taken it, and knows permissions alone.
    [200, 400, { ok: true, value: undefined }],
    [204, 404, { ok: true, value: undefined }],
  ])("answered with %j and read back with %j", async (deed, readBack, outcome) => {
    expect(await serviceThat([deed], 5, readBack).graph.apply(removal, 7)).toEqual(outcome);
  });

  test("of everybody is read back by the parent, and proves nothing by a 404 where nobody can be asked about", async () => {
    const { graph, readBacks } = serviceThat([404], 5, NO);
    expect((await graph.apply(deregister, 7)).ok).toBe(true);
    expect(readBacks[0]?.body).toMatchObject({ principal: "agent:a", operation: "read" });
    expect(await graph.apply({ ...deregister, parent: null }, 7)).toEqual({ ok: false, error: "http_404" });
  });
});

test("what is not there cannot be registered", async () => {
  expect(await serviceThat([404]).graph.apply(register, 7)).toEqual({ ok: false, error: "http_404" });
});

describe("a check", () => {
  const question = { subject: "user:anne", relation: "read", object: "task:1" };

  test.each<[Deed, unknown]>([
    [YES, { ok: true, value: true }],
    [NO, { ok: true, value: false }],
    [403, { ok: true, value: false }],
    [200, { ok: false, error: "unexpected_answer" }],
    [
      { status: 200, body: "{}" },
      { ok: false, error: "unexpected_answer" },
    ],
    [
      { status: 200, body: '{"allowed":"true"}' },
      { ok: false, error: "unexpected_answer" },
    ],
    [
      { status: 200, body: "<html>sign in</html>" },
      { ok: false, error: "unexpected_answer" },
    ],
    [
      { status: 200, body: "true" },
      { ok: false, error: "unexpected_answer" },
    ],
    [404, { ok: false, error: "http_404" }],
    [201, { ok: false, error: "unexpected_answer" }],
    [301, { ok: false, error: "unexpected_answer" }],
    [500, { ok: false, error: "http_5xx" }],
    [503, { ok: false, error: "http_503" }],
    ["reset", { ok: false, error: "connection" }],
  ])("answered with %s is a yes or a no only where the service says so", async (deed, verdict) => {
    const { graph, sent } = serviceThat([deed]);
    expect(await graph.check(question)).toEqual(verdict);
    expect(sent[0]).toEqual({
      path: "/v1/authz/check",
      body: { principal: "user:anne", resource: { type: "task", selector: "1" }, operation: "read" },
    });
  });
});

describe("a search", () => {
  const question = { subject: "user:anne", relation: "read", type: "task" };
  const page = { limit: 2, cursor: "1" };

  test("gives the next ids in their order, named either way", async () => {
    const { graph } = serviceThat([
      { status: 200, body: JSON.stringify({ items: ["4", { selector: "2" }, "1", "3"] }) },
    ]);
    expect(await graph.search(question, page)).toEqual({ ok: true, value: ["2", "3"] });
  });

  test.each(["", "[]", "{}", '{"items": [1]}', '{"items": "x"}'])(
    "answered with %j is an error and not an empty list",
    async (body) => {
      expect(await serviceThat([{ status: 200, body }]).graph.search(question, page)).toEqual({
        ok: false,
        error: "unexpected_answer",
      });
    },
  );
});

describe("the breaker", () => {
  test("opens after as many calls in vain as the setting says, asks nobody while it is open, and closes by one probe", async () => {
    const { graph, sent, pass } = serviceThat([...Array.from({ length: 8 }, () => 503), 200], 2);
    await graph.apply(register, 7);
    await graph.apply(register, 7);
    expect(sent).toHaveLength(8);
    expect(await graph.apply(register, 7)).toEqual({ ok: false, error: "breaker_open" });
    expect(await graph.check({ subject: "user:anne", relation: "read", object: "task:1" })).toEqual({
      ok: false,
      error: "breaker_open",
    });
    expect(sent).toHaveLength(8);
    pass(30_001);
    expect((await graph.apply(register, 7)).ok).toBe(true);
    expect(graph.breaker.snapshot().state).toBe("closed");
  });
});

describe("the counters", () => {
  test.each<[string, Deed[], string[]]>([
    ["success", [200], ["attempt register none", "success register none"]],
    [
      "a retry",
      [503, 200],
      ["attempt register none", "retry register http_503", "attempt register none", "success register none"],
    ],
    ["a failure for good", [400], ["attempt register none", "failure register http_4xx"]],
    [
      "exhaustion",
      ["reset"],
      [
        ...Array.from({ length: 3 }, () => ["attempt register none", "retry register connection"]).flat(),
        "attempt register none",
        "failure register connection",
      ],
    ],
  ])("tell of %s by operation and exception class", async (_name, deeds, expected) => {
    const { graph, counted } = serviceThat(deeds);
    await graph.apply(register, 7);
    expect(counted).toEqual(expected);
  });

  test("do not count questions", async () => {
    const { graph, counted } = serviceThat([200]);
    await graph.check({ subject: "user:anne", relation: "read", object: "task:1" });
    expect(counted).toEqual([]);
  });
});
