/** Tuples, models and checks: what anybody may write down, and what the engine makes of it. */
import * as fc from "fast-check";
import { check, listObjects } from "../../../src/authz/engine.ts";
import { type ModelDocument, parseModel, validateTuple } from "../../../src/authz/model.ts";
import { SALLYPORT_MODEL } from "../../../src/authz/sallyport-model.ts";
import { indexTuples } from "../../../src/authz/tuple-index.ts";
import { formatObject, formatSubject, parseTuple, type Tuple } from "../../../src/authz/tuple.ts";
import { randomCase } from "../../authz/random-graphs.ts";
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
const tuple: fc.Arbitrary<Tuple> = fc.record({ object, relation: fc.constantFrom(...RELATIONS), subject });

export const relationships = [
  target<Tuple>({
    name: "tuples",
    weight: 3,
    arbitrary: fc.record({
      object: fc.oneof(mutated(object), anyText),
      relation: fc.oneof(mutated(fc.constantFrom(...RELATIONS)), anyText),
      subject: fc.oneof(mutated(subject), anyText),
    }),
    holds(candidate) {
      const parsed = parseTuple(candidate);
      const valid = validateTuple(SALLYPORT_MODEL, candidate);
      if (valid.ok) must(parsed.ok, "what may be written is well-formed");
      if (!parsed.ok) return;
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
          TYPES.includes(of.type) && of.type !== "nonsense" && to.type !== "nonsense",
          "only what the model names may be written",
        );
    },
  }),
  target<{ tuples: Tuple[]; asked: Tuple; contextual: Tuple[] }>({
    name: "checks over the product's own model",
    weight: 3,
    arbitrary: fc.record({
      tuples: fc.array(tuple, { maxLength: 14 }),
      asked: tuple,
      contextual: fc.array(tuple, { maxLength: 3 }),
    }),
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
    },
  }),
  target<string>({
    name: "models",
    weight: 2,
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
      if (!model.ok) return;
      check(model.value, indexTuples(model.value, [{ object: "doc:1", relation: "a", subject: "user:ann" }]), {
        subject: "user:ann",
        relation: "a",
        object: "doc:1",
      });
    },
  }),
];
