import { env } from "cloudflare:workers";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { check, listObjects } from "../../../src/authz/engine/check.ts";
import { createGraph } from "../../../src/authz/store/graph.ts";
import { parseModel, validateTuple } from "../../../src/authz/engine/model.ts";
import { indexTuples } from "../../../src/authz/engine/tuple-index.ts";
import { runBatch } from "../../../src/database/batch.ts";
import { writeTuples } from "../../../src/authz/store/tuples.ts";
import { questionsOf, RANDOM_RELATIONS, RANDOM_TYPES, randomCase } from "../engine/random-graphs.ts";

/** Each case asks the database 24 questions; the engine alone runs thousands in `engine-property.test.ts`. */
const CASES = 60;

test(
  "what is read from D1 decides as the whole graph does, on random models and graphs",
  { timeout: 120_000 },
  async () => {
    let granted = 0;
    await fc.assert(
      fc.asyncProperty(randomCase, async ({ document, tuples, contextual, subject }) => {
        const parsed = parseModel(document);
        if (!parsed.ok) throw new Error(parsed.error);
        const model = parsed.value;
        const graph = createGraph(model);
        const valid = tuples.filter((tuple) => validateTuple(model, tuple).ok);
        const contextualTuples = contextual.filter((tuple) => validateTuple(model, tuple).ok);
        await runBatch(env.DB, [
          env.DB.prepare("DELETE FROM relationships"),
          ...writeTuples(valid, { nowMs: 1, model }),
        ]);
        const index = indexTuples(model, valid);
        await Promise.all(
          questionsOf().map(async (question) => {
            const request = { ...question, subject, contextualTuples };
            const expected = check(model, index, request);
            if (expected.ok && expected.value) granted += 1;
            expect(await graph.check(env.DB, request), `${question.object}#${question.relation}`).toEqual(expected);
          }),
        );
        for (const type of RANDOM_TYPES) {
          for (const relation of RANDOM_RELATIONS) {
            const request = { type, relation, subject, contextualTuples };
            const expected = listObjects(model, index, request);
            // oxlint-disable-next-line no-await-in-loop -- one database
            const page = await graph.listObjects(env.DB, request);
            expect(page.ok ? page.value.objects : page, `${type}#${relation}`).toEqual(
              expected.ok ? expected.value : expected,
            );
          }
        }
      }),
      { numRuns: CASES },
    );
    expect(granted).toBeGreaterThan(CASES);
  },
);
