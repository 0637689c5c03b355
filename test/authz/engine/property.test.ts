import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { check, listObjects } from "../../../src/authz/engine/check.ts";
import { parseModel, validateTuple } from "../../../src/authz/engine/model.ts";
import { indexTuples } from "../../../src/authz/engine/tuple-index.ts";
import { naiveGrants, questionsOf, RANDOM_RELATIONS, RANDOM_TYPES, randomCase } from "./random-graphs.ts";

/** fast-check prints the seed and the smallest counterexample when a property fails. */
const CASES = 5_000;

describe("the engine against a naive evaluator, on random models and graphs", () => {
  test("both agree on every check and every list, stored and contextual", { timeout: 120_000 }, () => {
    const questions = questionsOf();
    let granted = 0;
    let refused = 0;
    fc.assert(
      fc.property(randomCase, ({ document, tuples, contextual, subject }) => {
        const parsed = parseModel(document);
        if (!parsed.ok) throw new Error(parsed.error);
        const model = parsed.value;
        const contextualTuples = contextual.filter((tuple) => validateTuple(model, tuple).ok);
        const stored = indexTuples(model, tuples);
        const expected = naiveGrants(document, [...tuples, ...contextualTuples], subject);
        for (const question of questions) {
          const key = `${question.object}#${question.relation}`;
          const answer = check(model, stored, { ...question, subject, contextualTuples });
          expect(answer, key).toEqual({ ok: true, value: expected.has(key) });
          if (expected.has(key)) granted += 1;
          else refused += 1;
        }
        for (const type of RANDOM_TYPES) {
          for (const relation of RANDOM_RELATIONS) {
            const objects = questions
              .filter((question) => question.relation === relation && question.object.startsWith(`${type}:`))
              .map(({ object }) => object)
              .filter((object) => expected.has(`${object}#${relation}`));
            const answer = listObjects(model, stored, { type, relation, subject, contextualTuples });
            expect(answer, `${type}#${relation}`).toEqual({ ok: true, value: objects });
          }
        }
      }),
      { numRuns: CASES },
    );
    // A property over graphs in which nothing is ever granted would prove nothing.
    expect(granted).toBeGreaterThan(CASES);
    expect(refused).toBeGreaterThan(CASES);
  });
});
