import { err, ok, type Result } from "../../wire/result.ts";
import { hasUnseen } from "../../wire/text.ts";

/**
 * A relationship as the wire writes it (contract §5): `subject` is related to `object` by `relation`.
 * `object` is `type:id`; `subject` is `type:id`, `type:*` (everyone of that type) or `type:id#relation` (a userset).
 */
export type Tuple = { object: string; relation: string; subject: string };

/** `type:id`, taken apart. */
export type ObjectRef = { type: string; id: string };

/** A subject, taken apart; `relation` is empty unless the subject is a userset. */
export type SubjectRef = { type: string; id: string; relation: string };

/** Bounds of OpenFGA's API, in bytes of UTF-8; an object named by a DID may be as long as a subject (contract §1). */
export const MAX_OBJECT_BYTES = 256;
export const MAX_RELATION_BYTES = 50;
export const MAX_SUBJECT_BYTES = 512;

export const WILDCARD = "*";

const TYPE_NAME = /^[^:#@*]{1,254}$/u;
const RELATION_NAME = /^[^:#@]+$/u;

const encoder = new TextEncoder();

/**
 * Takes `type:id` apart at its first colon. Unlike OpenFGA an id may hold further colons, because a DID does
 * (`agent:did:cdi:…`); everything else is OpenFGA's own rule.
 *
 * @returns the parts, or what is wrong with the text; a wildcard is not an object
 */
export function parseObject(text: string): Result<ObjectRef, string> {
  const parts = splitTyped(text, text.includes(":did:") ? MAX_SUBJECT_BYTES : MAX_OBJECT_BYTES, "object");
  if (!parts.ok) return parts;
  if (parts.value.id === WILDCARD) return err("the object cannot be a wildcard");
  return parts;
}

/**
 * Takes a subject apart: `type:id`, `type:*` or `type:id#relation`.
 *
 * @returns the parts, or what is wrong with the text; a bare `*` and `type:*#relation` are refused
 */
export function parseSubject(text: string): Result<SubjectRef, string> {
  const hash = text.indexOf("#");
  if (hash < 0) {
    const plain = splitTyped(text, MAX_SUBJECT_BYTES, "subject");
    return plain.ok ? ok({ ...plain.value, relation: "" }) : plain;
  }
  if (byteLength(text) > MAX_SUBJECT_BYTES) return err(`the subject is longer than ${MAX_SUBJECT_BYTES} bytes`);
  const userset = splitTyped(text.slice(0, hash), MAX_SUBJECT_BYTES, "subject");
  if (!userset.ok) return userset;
  if (userset.value.id === WILDCARD) return err("the subject cannot be a wildcard in a userset");
  const relation = parseRelation(text.slice(hash + 1));
  return relation.ok ? ok({ ...userset.value, relation: relation.value }) : relation;
}

/** A relation's name: up to 50 bytes without `:`, `#`, `@` or white space. */
export function parseRelation(text: string): Result<string, string> {
  if (text === "") return err("the relation is empty");
  if (byteLength(text) > MAX_RELATION_BYTES) return err(`the relation is longer than ${MAX_RELATION_BYTES} bytes`);
  if (isUnreadable(text) || !RELATION_NAME.test(text)) return err("the relation is malformed");
  return ok(text);
}

/** A type's name, as a filter gives it. */
export function parseTypeName(text: string): Result<string, string> {
  if (isUnreadable(text) || !TYPE_NAME.test(text)) return err("the type is malformed");
  return ok(text);
}

/** A tuple taken apart, as storage keeps it. */
export type ParsedTuple = { object: ObjectRef; relation: string; subject: SubjectRef };

/** Takes a whole tuple apart; says which part is malformed. Knows no model: see `validateTuple` for what may be written. */
export function parseTuple(tuple: Tuple): Result<ParsedTuple, string> {
  const object = parseObject(tuple.object);
  if (!object.ok) return object;
  const relation = parseRelation(tuple.relation);
  if (!relation.ok) return relation;
  const subject = parseSubject(tuple.subject);
  if (!subject.ok) return subject;
  return ok({ object: object.value, relation: relation.value, subject: subject.value });
}

/** The inverse of {@link parseObject}. */
export function formatObject(type: string, id: string): string {
  return `${type}:${id}`;
}

/** The inverse of {@link parseSubject}. */
export function formatSubject(subject: SubjectRef): string {
  return subject.relation === ""
    ? `${subject.type}:${subject.id}`
    : `${subject.type}:${subject.id}#${subject.relation}`;
}

/** `object#relation@subject`, the form in which the field writes a tuple down. */
export function formatTuple(tuple: Tuple): string {
  return `${tuple.object}#${tuple.relation}@${tuple.subject}`;
}

function splitTyped(text: string, maxBytes: number, what: string): Result<ObjectRef, string> {
  const colon = text.indexOf(":");
  if (colon < 0) return err(`the ${what} must have the form type:id`);
  if (byteLength(text) > maxBytes) return err(`the ${what} is longer than ${maxBytes} bytes`);
  if (isUnreadable(text)) return err(`the ${what} holds white space, control characters or others that cannot be seen`);
  const type = text.slice(0, colon);
  const id = text.slice(colon + 1);
  if (!TYPE_NAME.test(type)) return err(`the ${what} must have the form type:id`);
  if (id === "" || id.includes("#")) return err(`the ${what} is malformed`);
  return ok({ type, id });
}

/** White space separates tuples where they are listed; and nothing that looks like another name may be one (contract §1, Text). */
function isUnreadable(text: string): boolean {
  return /\s/u.test(text) || hasUnseen(text);
}

function byteLength(text: string): number {
  return encoder.encode(text).length;
}
