/** The engine in this repository against OpenFGA and SpiceDB themselves. */
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { check } from "../../src/authz/engine/check.ts";
import { type ModelDocument, parseModel, validateTuple } from "../../src/authz/engine/model.ts";
import { indexTuples } from "../../src/authz/engine/tuple-index.ts";
import { formatTuple, type Tuple } from "../../src/authz/engine/tuple.ts";
import document from "../../src/authz/model.json" with { type: "json" };
import { createOpenFga } from "../../src/authz/sync/openfga.ts";
import type { GraphQuestion, RemoteGraph } from "../../src/authz/sync/remote-call.ts";
import { createSpiceDb } from "../../src/authz/sync/spicedb.ts";
import { graphAddress } from "../../src/wire/graph-address.ts";
import { silentLog } from "../support/silent-log.ts";
import { type Engine, ENGINE_TOKEN, type EngineName, hasEngines, startEngine } from "./engines.ts";

/** Of each engine, over graphs of Sallyport's model. */
const CHECKS_MIN = 20_000;
const parsed = parseModel(document as ModelDocument);
if (!parsed.ok) throw new Error(parsed.error);
const model = parsed.value;

/** A remote graph for an engine, as the Worker makes it. */
function graphOf(url: string, name: EngineName): RemoteGraph {
  const create = name === "openfga" ? createOpenFga : createSpiceDb;
  return create({
    url,
    token: ENGINE_TOKEN,
    settings: { breakerFailures: 5, breakerWindowMs: 60_000, breakerOpenMs: 30_000 },
    fetch: (address, init) => fetch(address, init),
    now: Date.now,
    pause: async () => {},
    random: Math.random,
    log: silentLog,
    count: () => {},
  });
}

const ids = ["a", "b"];
const subjects = ["user", "service_account", "agent"].flatMap((type) => ids.map((id) => `${type}:${id}`));
const objects = ["group", "tenant", "agent", "task"].flatMap((type) => ids.map((id) => `${type}:${id}`));
const usersets = ids.map((id) => `group:${id}#member`);
/** Every tuple of this small world that the model allows. */
const allowed: Tuple[] = objects.flatMap((object) =>
  [...(model.types.get(object.slice(0, object.indexOf(":")))?.keys() ?? [])].flatMap((relation) =>
    [...subjects, ...usersets, ...objects]
      .map((subject) => ({ object, relation, subject }))
      .filter((tuple) => validateTuple(model, tuple).ok)
      // Groups in a circle are an error to SpiceDB, and so no yes.
      .filter(
        (tuple) =>
          !(
            object.startsWith("group:") &&
            tuple.subject.includes("#") &&
            (tuple.subject.split("#")[0] ?? "") <= object
          ),
      ),
  ),
);
const tuplesByText = new Map(allowed.map((tuple) => [formatTuple(tuple), tuple]));
const questions: GraphQuestion[] = objects.flatMap((object) =>
  [...(model.types.get(object.slice(0, object.indexOf(":")))?.keys() ?? [])].flatMap((relation) =>
    subjects.map((subject) => ({ object, relation, subject })),
  ),
);

describe.runIf(hasEngines()).each<EngineName>(["openfga", "spicedb"])("%s and the engine here", (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await startEngine(name);
  }, 1_200_000);
  afterAll(() => engine?.stop());

  test("agree on every question about graphs of Sallyport's model", { timeout: 300_000 }, async () => {
    const url = graphAddress(engine.setting)?.url ?? "";
    const graph = graphOf(url, name);
    let asked = 0;
    let granted = 0;
    const graphs = fc.sample(
      fc.uniqueArray(fc.constantFrom(...tuplesByText.keys()), { minLength: 15, maxLength: 60 }),
      {
        numRuns: Math.ceil(CHECKS_MIN / questions.length) + 1,
        seed: 20_261_201,
      },
    );
    for (const texts of graphs) {
      // An object stands in one tenant.
      const tuples = [
        ...new Map(
          texts
            .map((text) => tuplesByText.get(text) as Tuple)
            .map((tuple) => [tuple.relation === "tenant" ? tuple.object : formatTuple(tuple), tuple]),
        ).values(),
      ];
      // oxlint-disable-next-line no-await-in-loop -- graph after graph, in one store
      await engine.empty();
      // oxlint-disable-next-line no-await-in-loop -- as above
      expect((await graph.mirror?.add(tuples))?.ok).toBe(true);
      // oxlint-disable-next-line no-await-in-loop -- as above
      const answered = await graph.checkMany?.(questions);
      const stored = indexTuples(model, tuples);
      const expected = questions.map((question) => check(model, stored, question));
      expect(answered).toEqual({ ok: true, value: expected.map((one) => one.ok && one.value) });
      asked += questions.length;
      granted += expected.filter((one) => one.ok && one.value).length;
    }
    expect(asked).toBeGreaterThanOrEqual(CHECKS_MIN);
    expect(granted).toBeGreaterThan(asked / 100);
  });
});
