import { parseModel, type Model } from "../engine/model.ts";
import document from "../model.json" with { type: "json" };

/** The model of this product, `model.fga` compiled by `scripts/compile-model.ts`. */
export const SALLYPORT_MODEL: Model = loadModel();

function loadModel(): Model {
  const model = parseModel(document);
  if (!model.ok) throw new Error(`src/authz/model.json: ${model.error}`);
  return model.value;
}
