/** The statements of one model's graph: their texts are written once, since they depend on the model and the kind of question alone. */
import type { SQL } from "drizzle-orm";
import { SQLiteSyncDialect } from "drizzle-orm/sqlite-core";
import { forwardPlan, type NodeKind, tupleGuardOf } from "../engine/expansion.ts";
import type { Model } from "../engine/model.ts";
import { checkSql, listSql } from "./queries.ts";

/** What a statement is chosen by. */
export type StatementKind = {
  kind: "check" | "list";
  /** The type and relation that are asked about. */
  type: string;
  relation: string;
  /** `user`, or `group#member` of a userset. */
  subjectKind: string;
  /** Where contextual tuples lead; null where the question has none. */
  context: readonly NodeKind[] | null;
};

export type Statements = {
  /** @returns the text, with numbered parameters: see `queries.ts` */
  textOf(wanted: StatementKind): string;
};

const dialect = new SQLiteSyncDialect();

/** Keeps the texts of questions without contextual tuples: one for each permission and kind of subject, a few dozen for a model. */
export function createStatements(model: Model): Statements {
  const texts = new Map<string, string>();
  return {
    textOf(wanted) {
      if (wanted.context !== null) return written(model, wanted);
      const key = `${wanted.kind} ${wanted.type}#${wanted.relation} ${wanted.subjectKind}`;
      const known = texts.get(key);
      if (known !== undefined) return known;
      const text = written(model, wanted);
      texts.set(key, text);
      return text;
    },
  };
}

function written(model: Model, { kind, type, relation, subjectKind, context }: StatementKind): string {
  const forward = forwardPlan(model, [{ type, relation }, ...(context ?? [])], subjectKind);
  if (kind === "check") return textOf(checkSql(forward));
  // Contextual tuples may open a guard, and a userset has none of its own: then the checks alone decide.
  const guard = context !== null || subjectKind.includes("#") ? null : tupleGuardOf(model, type, relation);
  return textOf(listSql(model, type, relation, { forward, guard }));
}

function textOf(statement: SQL): string {
  const { sql, params } = dialect.sqlToQuery(statement);
  if (params.length > 0) throw new Error("a statement of the graph binds its parameters by number");
  return sql;
}
