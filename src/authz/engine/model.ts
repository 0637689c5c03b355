import { err, ok, type Result } from "../../wire/result.ts";
import { parseTuple, WILDCARD, type SubjectRef, type Tuple } from "./tuple.ts";

/** The model's own form on the wire and on disk: OpenFGA schema 1.1 as JSON. */
export type ModelDocument = {
  readonly schema_version: string;
  readonly type_definitions: readonly TypeDefinition[];
};
export type TypeDefinition = {
  readonly type: string;
  readonly relations?: Readonly<Record<string, RewriteDocument>> | null;
  readonly metadata?: {
    readonly relations?: Readonly<
      Record<string, { readonly directly_related_user_types?: readonly TypeRestriction[] }>
    > | null;
  } | null;
};
export type TypeRestriction = {
  readonly type: string;
  readonly relation?: string;
  readonly wildcard?: object;
  readonly condition?: string;
};
export type RewriteDocument = {
  readonly this?: object;
  readonly computedUserset?: { readonly relation: string };
  readonly tupleToUserset?: {
    readonly tupleset: { readonly relation: string };
    readonly computedUserset: { readonly relation: string };
  };
  readonly union?: { readonly child: readonly RewriteDocument[] };
  readonly intersection?: { readonly child: readonly RewriteDocument[] };
  readonly difference?: { readonly base: RewriteDocument; readonly subtract: RewriteDocument };
};

/** How a relation follows from tuples and from other relations. */
export type Rewrite =
  | { readonly kind: "direct" }
  | { readonly kind: "computed"; readonly relation: string }
  | { readonly kind: "from"; readonly tupleset: string; readonly relation: string }
  | { readonly kind: "union" | "intersection"; readonly children: readonly Rewrite[] }
  | { readonly kind: "difference"; readonly base: Rewrite; readonly subtract: Rewrite };

export type Relation = {
  readonly rewrite: Rewrite;
  /** What a tuple's subject may be: `user`, `user:*` or `group#member`. */
  readonly subjects: ReadonlySet<string>;
};

/** A model that has been checked: every relation it names exists. */
export type Model = {
  readonly types: ReadonlyMap<string, ReadonlyMap<string, Relation>>;
  /** `type#relation` of every relation that stands after a `from`: its tuples name plain objects only. */
  readonly tuplesets: ReadonlySet<string>;
};

/**
 * Turns a schema 1.1 document into a {@link Model}.
 *
 * @returns the model, or the first thing that is wrong with the document; conditions are not supported
 */
export function parseModel(document: ModelDocument): Result<Model, string> {
  if (document.schema_version !== "1.1") return err(`schema ${document.schema_version} is not supported`);
  const types = new Map<string, Map<string, Relation>>();
  const tuplesets = new Set<string>();
  for (const definition of document.type_definitions) {
    if (types.has(definition.type)) return err(`type ${definition.type} is defined twice`);
    const relations = new Map<string, Relation>();
    types.set(definition.type, relations);
    for (const [name, body] of Object.entries(definition.relations ?? {})) {
      const rewrite = parseRewrite(body);
      if (rewrite === null) return err(`${definition.type}#${name} has a rewrite this engine does not know`);
      const restrictions = definition.metadata?.relations?.[name]?.directly_related_user_types ?? [];
      if (restrictions.some((restriction) => (restriction.condition ?? "") !== "")) {
        return err(`${definition.type}#${name} has a condition, which is not supported`);
      }
      relations.set(name, { rewrite, subjects: new Set(restrictions.map(formatRestriction)) });
      for (const tupleset of tuplesetsIn(rewrite)) tuplesets.add(`${definition.type}#${tupleset}`);
    }
  }
  const model: Model = { types, tuplesets };
  const problem = undefinedReference(model);
  return problem === null ? ok(model) : err(problem);
}

/** Whether a tuple may stand under this model; what may not is refused on write and ignored on read. */
export function validateTuple(model: Model, tuple: Tuple): Result<void, string> {
  const parsed = parseTuple(tuple);
  if (!parsed.ok) return parsed;
  const { object, relation, subject } = parsed.value;
  const relations = model.types.get(object.type);
  if (relations === undefined) return err(`type '${object.type}' is not in the model`);
  const definition = relations.get(relation);
  if (definition === undefined) return err(`relation '${object.type}#${relation}' is not in the model`);
  const problem = subjectProblem(model, subject);
  if (problem !== null) return err(problem);
  if (model.tuplesets.has(`${object.type}#${relation}`) && !(subject.relation === "" && subject.id !== WILDCARD)) {
    return err(`'${object.type}#${relation}' takes objects only, since other relations follow from it`);
  }
  if (!definition.subjects.has(restrictionOf(subject))) {
    return err(`'${restrictionOf(subject)}' is not allowed as the subject of '${object.type}#${relation}'`);
  }
  return ok(undefined);
}

/** What is unknown to the model about a subject, or null: its type and, of a userset, its relation must be defined. */
export function subjectProblem(model: Model, subject: SubjectRef): string | null {
  const relations = model.types.get(subject.type);
  if (relations === undefined) return `type '${subject.type}' is not in the model`;
  if (subject.relation !== "" && !relations.has(subject.relation)) {
    return `relation '${subject.type}#${subject.relation}' is not in the model`;
  }
  return null;
}

/** A subject's place among a relation's restrictions: `user`, `user:*` or `group#member`. */
export function restrictionOf(subject: SubjectRef): string {
  if (subject.relation !== "") return `${subject.type}#${subject.relation}`;
  return subject.id === WILDCARD ? `${subject.type}:${WILDCARD}` : subject.type;
}

function formatRestriction(restriction: TypeRestriction): string {
  if (restriction.wildcard !== undefined) return `${restriction.type}:${WILDCARD}`;
  return (restriction.relation ?? "") === "" ? restriction.type : `${restriction.type}#${restriction.relation}`;
}

function parseRewrite(body: RewriteDocument): Rewrite | null {
  if (body.this !== undefined) return { kind: "direct" };
  if (body.computedUserset !== undefined) return { kind: "computed", relation: body.computedUserset.relation };
  if (body.tupleToUserset !== undefined) {
    const { tupleset, computedUserset } = body.tupleToUserset;
    return { kind: "from", tupleset: tupleset.relation, relation: computedUserset.relation };
  }
  if (body.union !== undefined) return parseOperands("union", body.union.child);
  if (body.intersection !== undefined) return parseOperands("intersection", body.intersection.child);
  if (body.difference !== undefined) {
    const base = parseRewrite(body.difference.base);
    const subtract = parseRewrite(body.difference.subtract);
    return base === null || subtract === null ? null : { kind: "difference", base, subtract };
  }
  return null;
}

function parseOperands(kind: "union" | "intersection", bodies: readonly RewriteDocument[]): Rewrite | null {
  const children: Rewrite[] = [];
  for (const body of bodies) {
    const child = parseRewrite(body);
    if (child === null) return null;
    children.push(child);
  }
  return children.length === 0 ? null : { kind, children };
}

function* operandsOf(rewrite: Rewrite): Generator<Rewrite> {
  yield rewrite;
  switch (rewrite.kind) {
    case "union":
    case "intersection":
      for (const child of rewrite.children) yield* operandsOf(child);
      return;
    case "difference":
      yield* operandsOf(rewrite.base);
      yield* operandsOf(rewrite.subtract);
      return;
    case "direct":
    case "computed":
    case "from":
      return;
  }
}

function* tuplesetsIn(rewrite: Rewrite): Generator<string> {
  for (const operand of operandsOf(rewrite)) if (operand.kind === "from") yield operand.tupleset;
}

function undefinedReference(model: Model): string | null {
  for (const [type, relations] of model.types) {
    for (const [name, relation] of relations) {
      for (const operand of operandsOf(relation.rewrite)) {
        if (operand.kind === "computed" && !relations.has(operand.relation)) {
          return `${type}#${name} follows from ${type}#${operand.relation}, which is not defined`;
        }
        if (operand.kind === "from" && !relations.has(operand.tupleset)) {
          return `${type}#${name} follows from ${type}#${operand.tupleset}, which is not defined`;
        }
      }
      for (const subject of relation.subjects) {
        const [subjectType = "", subjectRelation] = subject.split("#");
        const known = model.types.get(subjectType.replace(/:\*$/u, ""));
        if (known === undefined || (subjectRelation !== undefined && !known.has(subjectRelation))) {
          return `${type}#${name} takes ${subject}, which is not defined`;
        }
      }
    }
  }
  return null;
}
