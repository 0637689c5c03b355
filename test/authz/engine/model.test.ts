import { describe, expect, test } from "vitest";
import {
  parseModel,
  validateTuple,
  type ModelDocument,
  type RewriteDocument,
} from "../../../src/authz/engine/model.ts";
import { SALLYPORT_MODEL } from "../../../src/authz/store/sallyport-model.ts";

describe("a tuple that the model does not allow is refused with its reason", () => {
  test.each([
    ["task:1", "owner", "user:ann", null],
    ["task:1", "viewer", "group:eng#member", null],
    ["task:1", "parent", "agent:a", null],
    ["group:all", "member", "group:eng#member", null],
    ["folder:1", "owner", "user:ann", "type 'folder' is not in the model"],
    ["task:1", "boss", "user:ann", "relation 'task#boss' is not in the model"],
    ["task:1", "owner", "employee:ann", "type 'employee' is not in the model"],
    ["task:1", "viewer", "group:eng#boss", "relation 'group#boss' is not in the model"],
    ["task:1", "owner", "user:*", "'user:*' is not allowed as the subject of 'task#owner'"],
    ["task:1", "owner", "group:eng#member", "'group#member' is not allowed as the subject of 'task#owner'"],
    ["task:1", "viewer", "group:eng", "'group' is not allowed as the subject of 'task#viewer'"],
    ["task:1", "read", "user:ann", "'user' is not allowed as the subject of 'task#read'"],
    ["task:1", "tenant", "tenant:a#member", "'task#tenant' takes objects only, since other relations follow from it"],
    ["tenant:a", "member", "group:eng#member", "'group#member' is not allowed as the subject of 'tenant#member'"],
  ])("%s#%s@%s", (object, relation, subject, reason) => {
    const verdict = validateTuple(SALLYPORT_MODEL, { object, relation, subject });
    expect(verdict).toEqual(reason === null ? { ok: true, value: undefined } : { ok: false, error: reason });
  });
});

describe("a model that cannot be decided is refused", () => {
  test.each<[string, RewriteDocument]>([
    ["doc#r follows from doc#missing", { computedUserset: { relation: "missing" } }],
    [
      "doc#r follows from doc#missing",
      { tupleToUserset: { tupleset: { relation: "missing" }, computedUserset: { relation: "r" } } },
    ],
    ["doc#r has a rewrite this engine does not know", {}],
    ["doc#r has a rewrite this engine does not know", { union: { child: [] } }],
  ])("%s", (reason, rewrite) => {
    const parsed = parseModel(modelWith(rewrite));
    expect(parsed).toMatchObject({ ok: false, error: expect.stringContaining(reason) as unknown });
  });

  test("another schema, and conditions", () => {
    expect(parseModel({ schema_version: "1.0", type_definitions: [] }).ok).toBe(false);
    const document = modelWith({ this: {} }, [{ type: "doc", condition: "in_office" }]);
    expect(parseModel(document)).toMatchObject({ ok: false, error: "doc#r has a condition, which is not supported" });
  });
});

function modelWith(
  rewrite: RewriteDocument,
  subjects: { type: string; condition?: string }[] = [{ type: "doc" }],
): ModelDocument {
  return {
    schema_version: "1.1",
    type_definitions: [
      {
        type: "doc",
        relations: { r: rewrite },
        metadata: { relations: { r: { directly_related_user_types: subjects } } },
      },
    ],
  };
}
