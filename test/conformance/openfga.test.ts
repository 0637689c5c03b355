import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { AUTHZ_ERROR_NUMBERS, check, listObjects } from "../../src/authz/engine/check.ts";
import { parseModel, validateTuple, type Model, type ModelDocument } from "../../src/authz/engine/model.ts";
import type { Tuple } from "../../src/authz/engine/tuple.ts";
import { indexTuples } from "../../src/authz/engine/tuple-index.ts";

/** OpenFGA's own tests, models compiled to JSON; kept beside the project, not in it. */
const DATA = new URL("../../../shared/conformance/openfga.json", import.meta.url);

type DataTuple = { user: string; relation: string; object: string };
type Assertion<E> = { contextualTuples: DataTuple[] | null; expectation: E | null; errorCode?: number };
type Stage = {
  model: ModelDocument;
  tuples: DataTuple[] | null;
  checkAssertions: (Assertion<boolean> & { tuple: DataTuple })[] | null;
  listObjectsAssertions: (Assertion<string[]> & { request: { user: string; type: string; relation: string } })[] | null;
};
type Data = { tests: { name: string; stages: Stage[] }[] };

const data: Data = existsSync(DATA) ? (JSON.parse(readFileSync(DATA, "utf8")) as Data) : { tests: [] };

describe.skipIf(data.tests.length === 0)("OpenFGA's consolidated 1.1 tests", () => {
  for (const mode of ["stored", "contextual"] as const) {
    describe(`with the tuples ${mode}`, () => {
      test.each(data.tests)("$name", ({ stages }) => {
        const written: Tuple[] = [];
        for (const stage of stages) {
          const model = modelOf(stage);
          written.push(...tuplesOf(stage.tuples));
          const stored = indexTuples(model, mode === "stored" ? written : []);
          // A tuple of an earlier stage that the new model refuses may be stored, but not handed in.
          const given = mode === "stored" ? [] : written.filter((tuple) => validateTuple(model, tuple).ok);
          for (const { tuple, ...assertion } of stage.checkAssertions ?? []) {
            const contextualTuples = [...given, ...tuplesOf(assertion.contextualTuples)];
            const { user: subject, relation, object } = tuple;
            const answer = check(model, stored, { subject, relation, object, contextualTuples });
            expect(outcomeOf(answer), `${subject} ${relation} ${object}`).toEqual(expectationOf(assertion));
          }
          for (const { request, ...assertion } of stage.listObjectsAssertions ?? []) {
            const contextualTuples = [...given, ...tuplesOf(assertion.contextualTuples)];
            const { user: subject, relation, type } = request;
            const answer = listObjects(model, stored, { subject, relation, type, contextualTuples });
            const expected = expectationOf(assertion);
            expect(outcomeOf(answer), `${subject} ${relation} ${type}`).toEqual(
              Array.isArray(expected) ? expected.toSorted() : expected,
            );
          }
        }
      });
    });
  }

  test("all 169 checks and 135 lists are in the data", () => {
    const stages = data.tests.flatMap((entry) => entry.stages);
    expect(stages.flatMap((stage) => stage.checkAssertions ?? [])).toHaveLength(169);
    expect(stages.flatMap((stage) => stage.listObjectsAssertions ?? [])).toHaveLength(135);
  });
});

function modelOf(stage: Stage): Model {
  const model = parseModel(stage.model);
  if (!model.ok) throw new Error(model.error);
  return model.value;
}

function tuplesOf(tuples: DataTuple[] | null): Tuple[] {
  return (tuples ?? []).map(({ user, relation, object }) => ({ object, relation, subject: user }));
}

function outcomeOf(answer: ReturnType<typeof check> | ReturnType<typeof listObjects>): unknown {
  return answer.ok ? answer.value : { errorCode: AUTHZ_ERROR_NUMBERS[answer.error.code] };
}

function expectationOf<E>(assertion: Assertion<E>): E | { errorCode: number } | null {
  return assertion.errorCode === undefined ? assertion.expectation : { errorCode: assertion.errorCode };
}
