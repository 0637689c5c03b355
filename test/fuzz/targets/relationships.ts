/** Tuples, models and checks: what anybody may write down, and what the engine makes of it. */
import * as fc from "fast-check";
import { check, listObjects } from "../../../src/authz/engine/check.ts";
import { type ModelDocument, parseModel, validateTuple } from "../../../src/authz/engine/model.ts";
import { SALLYPORT_MODEL } from "../../../src/authz/store/sallyport-model.ts";
import { indexTuples } from "../../../src/authz/engine/tuple-index.ts";
import { formatObject, formatSubject, parseTuple, type Tuple } from "../../../src/authz/engine/tuple.ts";
import { randomCase } from "../../authz/engine/random-graphs.ts";
import { agentDid, anyText, mutated } from "../arbitraries.ts";
import { must, target } from "../target.ts";

const TYPES = ["agent", "task", "tenant", "user", "service_account", "nonsense"];
const RELATIONS = [
  "tenant",
  "owner",
  "editor",
  "viewer",
  "executor",
  "member",
  "parent",
  "read",
  "update",
  "delete",
  "cancel",
  "create_task",
  "nonsense",
];
const object = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(fc.constantFrom(...TYPES), fc.constantFrom("1", "2", "3")).map((parts) => parts.join(":")),
  },
  { weight: 1, arbitrary: agentDid.map((did) => `agent:${did}`) },
);
const subject = fc.oneof(
  object,
  fc.tuple(object, fc.constantFrom(...RELATIONS)).map((parts) => parts.join("#")),
  fc.constantFrom("user:*", "agent:*", "*"),
);
const anyTuple: fc.Arbitrary<Tuple> = fc.record({ object, relation: fc.constantFrom(...RELATIONS), subject });

const PRINCIPALS = ["user", "service_account", "agent"];
const ROLES = [...PRINCIPALS, "group#member"];
/** What the model lets stand between an object and a subject; a type, or a type and the relation of its members. */
const WRITABLE: readonly [type: string, relation: string, subjects: readonly string[]][] = [
  ["group", "member", ROLES],
  ["tenant", "member", PRINCIPALS],
  ["agent", "tenant", ["tenant"]],
  ["agent", "owner", ["user"]],
  ...["editor", "viewer", "executor"].map((relation) => ["agent", relation, ROLES] as [string, string, string[]]),
  ["task", "tenant", ["tenant"]],
  ["task", "parent", ["agent"]],
  ["task", "owner", PRINCIPALS],
  ...["editor", "viewer"].map((relation) => ["task", relation, ROLES] as [string, string, string[]]),
];
/** One of two of everything, so that tuples meet. */
const named = (type: string) =>
  fc.constantFrom("1", "2").map((id) => {
    const [of, relation] = type.split("#");
    return relation === undefined ? `${of}:${id}` : `${of}:${id}#${relation}`;
  });
const goodTuple: fc.Arbitrary<Tuple> = fc
  .constantFrom(...WRITABLE)
  .chain(([type, relation, subjects]) =>
    fc
      .tuple(named(type), fc.constantFrom(...subjects).chain(named))
      .map(([of, to]) => ({ object: of, relation, subject: to })),
  );
const tuple = fc.oneof({ weight: 5, arbitrary: goodTuple }, { weight: 1, arbitrary: anyTuple });
/** A tenant in which everybody is a member and everything lies, so that permissions do not all end at its gate. */
const HOME: Tuple[] = [
  ...["user:1", "service_account:1", "agent:1"].map((who) => ({
    object: "tenant:1",
    relation: "member",
    subject: who,
  })),
  ...["agent:1", "task:1", "task:2"].map((what) => ({ object: what, relation: "tenant", subject: "tenant:1" })),
];
const question: fc.Arbitrary<Tuple> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      object: fc.constantFrom("agent:1", "task:1", "task:2"),
      relation: fc.constantFrom("read", "update", "delete", "cancel", "create_task", "owner", "viewer"),
      subject: fc.constantFrom("user:1", "service_account:1", "agent:1", "user:2"),
    }),
  },
  { weight: 1, arbitrary: anyTuple },
);

export const relationships = [
  target<Tuple>({
    name: "tuples",
    weight: 3,
    acceptedAtLeast: 0.05,
    arbitrary: fc.oneof(
      { weight: 1, arbitrary: tuple },
      {
        weight: 2,
        // Right but for one place.
        arbitrary: fc
          .tuple(goodTuple, fc.constantFrom("object", "relation", "subject"), fc.oneof(anyText, subject))
          .chain(([good, where, other]) =>
            fc
              .oneof(mutated(fc.constant(good[where as keyof Tuple])), fc.constant(other))
              .map((text) => ({ ...good, [where]: text })),
          ),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          object: fc.oneof(mutated(object), anyText),
          relation: fc.oneof(mutated(fc.constantFrom(...RELATIONS)), anyText),
          subject: fc.oneof(mutated(subject), anyText),
        }),
      },
    ),
    holds(candidate) {
      const parsed = parseTuple(candidate);
      const valid = validateTuple(SALLYPORT_MODEL, candidate);
      if (valid.ok) must(parsed.ok, "what may be written is well-formed");
      if (!parsed.ok) return false;
      const { object: of, relation, subject: to } = parsed.value;
      must(
        formatObject(of.type, of.id) === candidate.object &&
          relation === candidate.relation &&
          formatSubject(to) === candidate.subject,
        "taken apart and put together it is the same",
      );
      must(
        of.id !== "*" &&
          of.id !== "" &&
          to.id !== "" &&
          !/[\s\p{Cc}]/u.test(candidate.object + candidate.relation + candidate.subject),
        "no name is empty, a wildcard or unprintable",
      );
      if (valid.ok)
        must(
          WRITABLE.some(
            ([type, named_, subjects]) =>
              type === of.type &&
              named_ === relation &&
              subjects.includes(to.relation === "" ? to.type : `${to.type}#${to.relation}`),
          ),
          "only what the model names may be written",
        );
      return valid.ok;
    },
  }),
  target<{ tuples: Tuple[]; asked: Tuple; contextual: Tuple[] }>({
    name: "checks over the product's own model",
    weight: 3,
    acceptedAtLeast: 0.02,
    arbitrary: fc
      .record({
        some: fc.array(tuple, { maxLength: 12 }),
        isAtHome: fc.integer({ min: 0, max: 3 }),
        asked: question,
        // Said of the very object and subject that is asked for, so that some are allowed.
        role: fc.constantFrom("owner", "editor", "viewer", "executor", "parent", ""),
        contextual: fc.array(tuple, { maxLength: 3 }),
      })
      .map(({ some, isAtHome, asked, role, contextual }) => ({
        tuples: [
          ...(isAtHome > 0 ? HOME : []),
          ...(role === "" ? [] : [{ object: asked.object, relation: role, subject: asked.subject }]),
          ...some,
        ],
        asked,
        contextual,
      })),
    holds({ tuples, asked, contextual }) {
      const stored = indexTuples(SALLYPORT_MODEL, tuples);
      const answer = check(SALLYPORT_MODEL, stored, { ...asked, contextualTuples: contextual });
      if (answer.ok && answer.value) {
        const bare = check(SALLYPORT_MODEL, indexTuples(SALLYPORT_MODEL, []), asked);
        must((bare.ok && bare.value) || tuples.length + contextual.length > 0, "nobody is allowed anything by nothing");
      }
      const listed = listObjects(SALLYPORT_MODEL, stored, {
        subject: asked.subject,
        relation: asked.relation,
        type: asked.object.slice(0, asked.object.indexOf(":")),
      });
      const plain = check(SALLYPORT_MODEL, stored, asked);
      const isStored = tuples.some(({ object: of }) => of === asked.object);
      if (plain.ok && listed.ok && isStored)
        must(listed.value.includes(asked.object) === plain.value, "a list and a check say the same");
      return answer.ok && answer.value;
    },
  }),
  target<string>({
    name: "models",
    weight: 2,
    acceptedAtLeast: 0.1,
    // Of a document's own shape, with names taken for one another: a model is compiled at build time and typed.
    arbitrary: fc
      .tuple(
        randomCase,
        fc.array(
          fc.tuple(fc.nat(), fc.constantFrom("a", "b", "c", "up", "user", "doc", "team", "", "this", "__proto__", "#")),
          { maxLength: 4 },
        ),
      )
      .map(([{ document }, swaps]) =>
        swaps.reduce((text, [pick, name]) => {
          const values = [...text.matchAll(/:"([^"]*)"/g)];
          const chosen = values[pick % Math.max(1, values.length)];
          return chosen === undefined
            ? text
            : `${text.slice(0, chosen.index)}:"${name}"${text.slice(chosen.index + chosen[0].length)}`;
        }, JSON.stringify(document)),
      ),
    holds(text) {
      const document = JSON.parse(text) as ModelDocument;
      const model = parseModel(document);
      if (!model.ok) return false;
      check(model.value, indexTuples(model.value, [{ object: "doc:1", relation: "a", subject: "user:ann" }]), {
        subject: "user:ann",
        relation: "a",
        object: "doc:1",
      });
      return true;
    },
  }),
];
