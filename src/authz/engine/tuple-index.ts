import { validateTuple, type Model } from "./model.ts";
import { WILDCARD, type Tuple } from "./tuple.ts";

/** A userset that stands as a subject: everyone related to `object` by `relation`. */
export type Userset = { readonly object: string; readonly relation: string };

/** Tuples laid out for the check: every question is one look-up. Holds only what the model allows. */
export type TupleIndex = {
  has(object: string, relation: string, subject: string): boolean;
  /** Usersets that are subjects of `object#relation`. */
  usersets(object: string, relation: string): readonly Userset[];
  /** Plain objects that are subjects of `object#relation`. */
  objects(object: string, relation: string): readonly string[];
  /** Every `object#relation` whose subject is exactly `subject`. */
  relatedTo(subject: string): readonly Userset[];
};

type Entry = { subjects: Set<string>; usersets: Userset[]; objects: string[] };

/** Lays tuples out for the check, leaving out those that the model does not allow (an older model may have). */
export function indexTuples(model: Model, tuples: Iterable<Tuple>): TupleIndex {
  const forward = new Map<string, Entry>();
  const backward = new Map<string, Userset[]>();
  for (const tuple of tuples) {
    if (!validateTuple(model, tuple).ok) continue;
    const key = `${tuple.object}#${tuple.relation}`;
    const entry = forward.get(key) ?? { subjects: new Set(), usersets: [], objects: [] };
    forward.set(key, entry);
    if (entry.subjects.has(tuple.subject)) continue;
    entry.subjects.add(tuple.subject);
    fileSubject(entry, tuple.subject);
    const related = backward.get(tuple.subject) ?? [];
    backward.set(tuple.subject, related);
    related.push({ object: tuple.object, relation: tuple.relation });
  }
  return {
    has: (object, relation, subject) => forward.get(`${object}#${relation}`)?.subjects.has(subject) ?? false,
    usersets: (object, relation) => forward.get(`${object}#${relation}`)?.usersets ?? [],
    objects: (object, relation) => forward.get(`${object}#${relation}`)?.objects ?? [],
    relatedTo: (subject) => backward.get(subject) ?? [],
  };
}

/** Two sets of tuples as one, for contextual tuples; a tuple in both counts once. */
export function combineIndexes(stored: TupleIndex, contextual: TupleIndex): TupleIndex {
  return {
    has: (object, relation, subject) =>
      stored.has(object, relation, subject) || contextual.has(object, relation, subject),
    usersets: (object, relation) => [...stored.usersets(object, relation), ...contextual.usersets(object, relation)],
    objects: (object, relation) => [...stored.objects(object, relation), ...contextual.objects(object, relation)],
    relatedTo: (subject) => [...stored.relatedTo(subject), ...contextual.relatedTo(subject)],
  };
}

/** The type of an object that has been parsed before. */
export function typeOf(object: string): string {
  return object.slice(0, object.indexOf(":"));
}

function fileSubject(entry: Entry, subject: string): void {
  const hash = subject.indexOf("#");
  if (hash >= 0) entry.usersets.push({ object: subject.slice(0, hash), relation: subject.slice(hash + 1) });
  else if (subject.slice(subject.indexOf(":") + 1) !== WILDCARD) entry.objects.push(subject);
}
