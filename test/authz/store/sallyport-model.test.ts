import { describe, expect, test } from "vitest";
import { check } from "../../../src/authz/engine/check.ts";
import { agentGrants, apiKeyGrants, taskGrants } from "../../../src/authz/grants.ts";
import { SALLYPORT_MODEL } from "../../../src/authz/store/sallyport-model.ts";
import { validateTuple } from "../../../src/authz/engine/model.ts";
import { formatTuple, type Tuple } from "../../../src/authz/engine/tuple.ts";
import { indexTuples } from "../../../src/authz/engine/tuple-index.ts";

/** A tenant with one agent, as registration writes it, and everyone who may be named on the agent or on a task. */
const people = [
  "user:colleague",
  "user:agent-editor",
  "user:agent-viewer",
  "user:agent-executor",
  "user:task-editor",
  "user:task-viewer",
  "user:grouped",
  "agent:peer",
];
const registered = agentGrants({ agentDid: "a", ownerDid: "owner", tenantId: "home" });
const named = [
  ...people.map((person) => t(`tenant:home#member@${person}`)),
  ...apiKeyGrants({ serviceAccountId: "key", agentDid: "a", tenantId: "home" }),
  t("agent:a#editor@user:agent-editor"),
  t("agent:a#viewer@user:agent-viewer"),
  t("agent:a#executor@user:agent-executor"),
  t("group:inner#member@user:grouped"),
  t("group:outer#member@group:inner#member"),
];
const taskOf = (...owners: string[]): Tuple[] => [
  ...taskGrants({ taskId: "1", tenantId: "home", agentDid: "a", owners }),
  t("task:1#editor@user:task-editor"),
  t("task:1#viewer@user:task-viewer"),
  t("task:1#viewer@group:outer#member"),
];

const permissionsOn = (object: string, relations: string[], subject: string, tuples: Tuple[]): string => {
  const index = indexTuples(SALLYPORT_MODEL, tuples);
  return relations
    .filter((relation) => {
      const answer = check(SALLYPORT_MODEL, index, { object, relation, subject });
      if (!answer.ok) throw new Error(answer.error.reason);
      return answer.value;
    })
    .join(" ");
};
const onTask = (subject: string, tuples: Tuple[]): string =>
  permissionsOn("task:1", ["read", "update", "cancel", "delete"], subject, tuples);
const onAgent = (subject: string, tuples: Tuple[]): string =>
  permissionsOn("agent:a", ["read", "update", "delete", "create_task"], subject, tuples);

test("what stands by itself is what the contract names, and the model allows it", () => {
  expect(registered.map(formatTuple)).toEqual([
    "agent:a#tenant@tenant:home",
    "agent:a#owner@user:owner",
    "agent:a#executor@agent:a",
    "tenant:home#member@user:owner",
    "tenant:home#member@agent:a",
  ]);
  const all = [...registered, ...named, ...taskOf("user:owner", "agent:a", "service_account:key")];
  for (const tuple of all)
    expect(validateTuple(SALLYPORT_MODEL, tuple), formatTuple(tuple)).toMatchObject({ ok: true });
});

describe("who may do what with an agent", () => {
  test.each([
    ["user:owner", "read update delete create_task"],
    ["agent:a", "read create_task"],
    ["user:agent-editor", "read update"],
    ["user:agent-viewer", "read"],
    ["user:agent-executor", "read create_task"],
    ["service_account:key", "read create_task"],
    ["agent:peer", ""],
    ["user:colleague", ""],
    ["user:stranger", ""],
  ])("%s: %s", (subject, permissions) => {
    expect(onAgent(subject, [...registered, ...named])).toBe(permissions);
  });

  test("agents, groups and service accounts can be named too", () => {
    const group = t("agent:a#editor@group:outer#member");
    expect(onAgent("user:grouped", [...registered, ...named, group])).toBe("read update");
    const peer = t("agent:a#executor@agent:peer");
    expect(onAgent("agent:peer", [...registered, ...named, peer])).toBe("read create_task");
    const service = t("agent:a#viewer@service_account:key");
    expect(onAgent("service_account:key", [...registered, ...named, service])).toBe("read create_task");
  });
});

describe("who may do what with a task", () => {
  /** Who is named on the task or the agent may do the same, whoever created the task. */
  const everywhere: [string, string][] = [
    ["user:task-editor", "read update"],
    ["user:task-viewer", "read"],
    ["user:grouped", "read"],
    ["user:agent-editor", "read"],
    ["user:agent-viewer", ""],
    ["user:agent-executor", ""],
    ["user:colleague", ""],
    ["user:stranger", ""],
    ["agent:peer", ""],
  ];

  describe.each<[string, string[], [string, string][]]>([
    [
      "created by the agent: the agent and its owner own it",
      ["user:owner", "agent:a"],
      [
        ["user:owner", "read update cancel delete"],
        ["agent:a", "read update cancel delete"],
        ["service_account:key", ""],
      ],
    ],
    [
      "created by a device: the owner owns it, the agent works on it",
      ["user:owner"],
      [
        ["user:owner", "read update cancel delete"],
        ["agent:a", "read update"],
        ["service_account:key", ""],
      ],
    ],
    [
      "created by an API key: its service account owns it, the agent's owner sees it",
      ["service_account:key"],
      [
        ["service_account:key", "read update cancel delete"],
        ["user:owner", "read"],
        ["agent:a", "read update"],
      ],
    ],
    [
      "created by a peer that may execute: the peer owns it",
      ["agent:peer"],
      [
        ["agent:peer", "read update cancel delete"],
        ["user:owner", "read"],
        ["agent:a", "read update"],
      ],
    ],
    [
      "created by nobody (the operator): the agent works on it",
      [],
      [
        ["user:owner", "read"],
        ["agent:a", "read update"],
      ],
    ],
  ])("%s", (_, owners, own) => {
    const decided = new Map([...everywhere, ...own]);
    test.each([...decided])("%s: %s", (subject, permissions) => {
      expect(onTask(subject, [...registered, ...named, ...taskOf(...owners)])).toBe(permissions);
    });
  });
});

describe("nobody from outside the tenant, whatever tuples say", () => {
  const outsider = "user:outsider";
  const everything = [
    ...registered,
    ...taskOf(),
    t(`agent:a#owner@${outsider}`),
    t(`agent:a#editor@${outsider}`),
    t(`agent:a#viewer@${outsider}`),
    t(`agent:a#executor@${outsider}`),
    t(`task:1#owner@${outsider}`),
    t(`task:1#editor@${outsider}`),
    t(`task:1#viewer@${outsider}`),
    t(`group:inner#member@${outsider}`),
    t("group:outer#member@group:inner#member"),
    t("agent:a#editor@group:outer#member"),
    t("agent:a#executor@group:outer#member"),
    t("task:1#editor@group:outer#member"),
    t(`tenant:away#member@${outsider}`),
    t("agent:away#tenant@tenant:away"),
    t(`agent:away#owner@${outsider}`),
  ];

  test("an outsider with every tuple there is may do nothing, and everything once inside", () => {
    expect(onAgent(outsider, everything)).toBe("");
    expect(onTask(outsider, everything)).toBe("");
    const inside = [...everything, t(`tenant:home#member@${outsider}`)];
    expect(onAgent(outsider, inside)).toBe("read update delete create_task");
    expect(onTask(outsider, inside)).toBe("read update cancel delete");
  });

  test("an agent of another tenant gets no task by being named its parent, nor does its owner", () => {
    const parent = [...everything, t("task:1#parent@agent:away"), t("tenant:away#member@agent:away")];
    expect(onTask("agent:away", parent)).toBe("");
    expect(onTask(outsider, parent)).toBe("");
  });

  test("a tenant takes members one by one: no group, no everyone", () => {
    const widened = [
      ...everything,
      t("tenant:home#member@group:outer#member"),
      t("tenant:home#member@user:*"),
      t("tenant:home#member@tenant:away#member"),
    ];
    expect(onTask(outsider, widened)).toBe("");
  });

  test("an object without a tenant is nobody's", () => {
    const homeless = [...everything, ...named].filter((tuple) => tuple.relation !== "tenant");
    expect(onTask("user:owner", homeless)).toBe("");
    expect(onAgent("user:owner", homeless)).toBe("");
  });

  test("every permission of the model ends in the gate", () => {
    for (const [type, relations] of SALLYPORT_MODEL.types) {
      for (const [name, { rewrite, subjects }] of relations) {
        if (subjects.size > 0 || name === "internal_tenant_gate") continue;
        expect(rewrite.kind, `${type}#${name}`).toBe("intersection");
        expect(rewrite.kind === "intersection" && rewrite.children.at(-1), `${type}#${name}`).toEqual({
          kind: "computed",
          relation: "internal_tenant_gate",
        });
      }
    }
  });
});

function t(text: string): Tuple {
  const at = text.indexOf("@");
  const hash = text.indexOf("#");
  return { object: text.slice(0, hash), relation: text.slice(hash + 1, at), subject: text.slice(at + 1) };
}
