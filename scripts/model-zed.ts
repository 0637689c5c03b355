/** SpiceDB's schema of this product's model, made from the compiled `model.fga`. */
import type { ModelDocument, RewriteDocument } from "../src/authz/engine/model.ts";

/**
 * @returns the schema: a relation where the model takes tuples alone, a permission where it follows from others
 * @throws RangeError for what SpiceDB has no form of, such as a relation that both takes tuples and follows from others
 */
export function zedSchema(document: ModelDocument): string {
  const definitions = document.type_definitions.map(({ type, relations, metadata }) => {
    const lines = Object.entries(relations ?? {}).map(([name, rewrite]) => {
      if (rewrite.this === undefined) return `\tpermission ${name} = ${expression(rewrite)}`;
      const subjects = metadata?.relations?.[name]?.directly_related_user_types ?? [];
      return `\trelation ${name}: ${subjects.map(subjectOf).join(" | ")}`;
    });
    return lines.length === 0 ? `definition ${type} {}` : [`definition ${type} {`, ...lines, "}"].join("\n");
  });
  const note = "// Made from src/authz/model.fga by scripts/compile-model.ts.";
  return `${[note, ...definitions].join("\n\n")}\n`;
}

function subjectOf({ type, relation = "", wildcard }: { type: string; relation?: string; wildcard?: object }): string {
  if (wildcard !== undefined) return `${type}:*`;
  return relation === "" ? type : `${type}#${relation}`;
}

function expression(rewrite: RewriteDocument): string {
  if (rewrite.computedUserset !== undefined) return rewrite.computedUserset.relation;
  if (rewrite.tupleToUserset !== undefined) {
    const { tupleset, computedUserset } = rewrite.tupleToUserset;
    return `${tupleset.relation}->${computedUserset.relation}`;
  }
  if (rewrite.union !== undefined) return operands(rewrite.union.child, " + ");
  if (rewrite.intersection !== undefined) return operands(rewrite.intersection.child, " & ");
  if (rewrite.difference !== undefined) return operands([rewrite.difference.base, rewrite.difference.subtract], " - ");
  throw new RangeError("a relation takes tuples and follows from others, which SpiceDB keeps apart");
}

function operands(children: readonly RewriteDocument[], operator: string): string {
  return `(${children.map(expression).join(operator)})`;
}
