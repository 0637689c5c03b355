import { describe, expect, test } from "vitest";
import { check, listObjects } from "../../../src/authz/engine/check.ts";
import { parseModel, type Model, type ModelDocument, type RewriteDocument } from "../../../src/authz/engine/model.ts";
import type { Tuple } from "../../../src/authz/engine/tuple.ts";
import { indexTuples } from "../../../src/authz/engine/tuple-index.ts";

const computed = (relation: string): RewriteDocument => ({ computedUserset: { relation } });
const direct: RewriteDocument = { this: {} };

const model = modelOf({
  schema_version: "1.1",
  type_definitions: [
    { type: "user" },
    {
      type: "group",
      relations: { member: direct },
      metadata: {
        relations: {
          member: { directly_related_user_types: [{ type: "user" }, { type: "group", relation: "member" }] },
        },
      },
    },
    {
      type: "doc",
      relations: {
        blocked: direct,
        viewer: { difference: { base: direct, subtract: computed("blocked") } },
        public: direct,
        paradox: { difference: { base: direct, subtract: computed("denied") } },
        denied: direct,
      },
      metadata: {
        relations: {
          blocked: { directly_related_user_types: [{ type: "user" }, { type: "group", relation: "member" }] },
          viewer: { directly_related_user_types: [{ type: "user" }, { type: "group", relation: "member" }] },
          public: { directly_related_user_types: [{ type: "user", wildcard: {} }] },
          paradox: { directly_related_user_types: [{ type: "user" }] },
          denied: { directly_related_user_types: [{ type: "doc", relation: "paradox" }] },
        },
      },
    },
  ],
});

const ask = (tuples: Tuple[], object: string, relation: string, subject = "user:ann"): ReturnType<typeof check> =>
  check(model, indexTuples(model, tuples), { object, relation, subject });
const allowed = { ok: true, value: true };
const denied = { ok: true, value: false };

describe("groups in groups", () => {
  test("a member of a group in a group is a member, and stops being one with any link of the chain", () => {
    const chain = [
      t("group:a#member@group:b#member"),
      t("group:b#member@group:c#member"),
      t("group:c#member@user:ann"),
    ];
    const grant = t("doc:1#viewer@group:a#member");
    expect(ask([grant, ...chain], "doc:1", "viewer")).toEqual(allowed);
    for (const broken of chain) {
      expect(ask([grant, ...chain.filter((tuple) => tuple !== broken)], "doc:1", "viewer")).toEqual(denied);
    }
  });

  test("24 tuples one after another are followed; a question beyond that is an error and no answer", () => {
    const chain = (length: number): Tuple[] => [
      ...Array.from({ length: length - 1 }, (_, index) => t(`group:${index}#member@group:${index + 1}#member`)),
      t(`group:${length - 1}#member@user:ann`),
    ];
    expect(ask(chain(25), "group:0", "member")).toEqual(allowed);
    expect(ask(chain(26), "group:0", "member")).toMatchObject({
      ok: false,
      error: { code: "authorization_model_resolution_too_complex" },
    });
    // A short way that grants makes the long one irrelevant.
    expect(ask([...chain(26), t("group:0#member@user:ann")], "group:0", "member")).toEqual(allowed);
  });
});

describe("cycles", () => {
  test("groups that hold each other grant nothing to strangers and lose no member", () => {
    const ring = [t("group:a#member@group:b#member"), t("group:b#member@group:a#member")];
    expect(ask(ring, "group:a", "member")).toEqual(denied);
    expect(ask([...ring, t("group:b#member@user:ann")], "group:a", "member")).toEqual(allowed);
  });

  test("a ring of groups on a block list blocks its members and nobody else", () => {
    const ring = [
      t("group:a#member@group:b#member"),
      t("group:b#member@group:a#member"),
      t("group:a#member@user:bob"),
      t("doc:1#blocked@group:b#member"),
      t("doc:1#viewer@user:ann"),
      t("doc:1#viewer@user:bob"),
    ];
    expect(ask(ring, "doc:1", "viewer", "user:ann")).toEqual(allowed);
    expect(ask(ring, "doc:1", "viewer", "user:bob")).toEqual(denied);
  });

  test("a grant that rests on its own denial is no grant", () => {
    const tuples = [t("doc:1#paradox@user:ann"), t("doc:1#denied@doc:1#paradox")];
    expect(ask(tuples, "doc:1", "paradox")).toEqual(denied);
    expect(ask(tuples, "doc:1", "denied")).toEqual(denied);
    expect(ask([t("doc:1#paradox@user:ann")], "doc:1", "paradox")).toEqual(allowed);
  });
});

describe("wildcards", () => {
  test("everyone of the type is meant, and no userset, no other type", () => {
    const tuples = [t("doc:1#public@user:*")];
    expect(ask(tuples, "doc:1", "public", "user:anybody")).toEqual(allowed);
    expect(ask(tuples, "doc:1", "public", "user:*")).toEqual(allowed);
    expect(ask(tuples, "doc:1", "public", "group:a")).toEqual(denied);
    expect(ask(tuples, "doc:1", "public", "group:a#member")).toEqual(denied);
  });

  test("a wildcard that the relation does not take is ignored on read", () => {
    expect(ask([t("doc:1#viewer@user:*")], "doc:1", "viewer")).toEqual(denied);
  });
});

test("a userset is related to itself", () => {
  expect(ask([], "group:a", "member", "group:a#member")).toEqual(allowed);
  expect(ask([t("group:b#member@group:a#member")], "group:b", "member", "group:a#member")).toEqual(allowed);
  expect(
    listObjects(model, indexTuples(model, []), { type: "group", relation: "member", subject: "group:a#member" }),
  ).toEqual({
    ok: true,
    value: ["group:a"],
  });
});

describe("contextual tuples", () => {
  test("count like stored ones for one question, and one in both counts once", () => {
    const stored = indexTuples(model, [t("doc:1#viewer@group:a#member")]);
    const request = { object: "doc:1", relation: "viewer", subject: "user:ann" };
    expect(check(model, stored, { ...request, contextualTuples: [t("group:a#member@user:ann")] })).toEqual(allowed);
    expect(check(model, stored, request)).toEqual(denied);
    const doubled = [t("group:a#member@user:ann"), t("doc:1#viewer@group:a#member")];
    expect(
      listObjects(model, stored, { type: "doc", relation: "viewer", subject: "user:ann", contextualTuples: doubled }),
    ).toEqual({ ok: true, value: ["doc:1"] });
  });

  test("one that the model does not allow refuses the question", () => {
    const contextualTuples = [t("doc:1#viewer@user:*")];
    const answer = check(model, indexTuples(model, []), {
      object: "doc:1",
      relation: "viewer",
      subject: "user:ann",
      contextualTuples,
    });
    expect(answer).toMatchObject({ ok: false, error: { code: "invalid_tuple" } });
  });
});

describe("a question outside the model is an error, never a no", () => {
  test.each([
    ["folder:1", "viewer", "user:ann", "validation_error"],
    ["doc:1", "boss", "user:ann", "validation_error"],
    ["doc:1", "viewer", "robot:1", "validation_error"],
    ["doc:1", "viewer", "group:a#boss", "validation_error"],
    ["doc:1", "viewer", "*", "validation_error"],
    ["doc:*", "viewer", "user:ann", "validation_error"],
    ["doc", "viewer", "user:ann", "validation_error"],
  ])("check %s %s %s", (object, relation, subject, code) => {
    expect(ask([], object, relation, subject)).toMatchObject({ ok: false, error: { code } });
  });

  test.each([
    ["folder", "viewer", "user:ann", "type_not_found"],
    ["doc", "boss", "user:ann", "relation_not_found"],
    ["doc", "viewer", "robot:1", "validation_error"],
  ])("list %s %s %s", (type, relation, subject, code) => {
    const answer = listObjects(model, indexTuples(model, []), { type, relation, subject });
    expect(answer).toMatchObject({ ok: false, error: { code } });
  });
});

test("a graph with more paths than could ever be walked is decided", () => {
  // 20 layers of 40 groups, each holding all of the next layer: 40^20 paths, 32 000 tuples.
  const tuples: Tuple[] = [];
  for (let layer = 0; layer < 20; layer += 1) {
    for (let from = 0; from < 40; from += 1) {
      for (let to = 0; to < 40; to += 1) {
        tuples.push(t(`group:${layer}-${from}#member@group:${layer + 1}-${to}#member`));
      }
    }
  }
  const index = indexTuples(model, tuples);
  expect(check(model, index, { object: "group:0-0", relation: "member", subject: "user:ann" })).toEqual(denied);
});

function t(text: string): Tuple {
  const at = text.indexOf("@");
  const hash = text.indexOf("#");
  return { object: text.slice(0, hash), relation: text.slice(hash + 1, at), subject: text.slice(at + 1) };
}

function modelOf(document: ModelDocument): Model {
  const parsed = parseModel(document);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}
