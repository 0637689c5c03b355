/** What a caller gives: checked here, so that a mistake names its argument and is not taken for an outage. */
import { JsonText, writeJson } from "../../wire/json-text.ts";
import { encodeHeaderText, plainTextProblem } from "../../wire/text.ts";
import { InvalidArgumentError } from "./errors.ts";

/** Header values that need no spelling of their own. */
const VISIBLE_ASCII = /^[\x21-\x7e]+$/;
const CONVERSATION_ID_MAX = 256;

/**
 * @param message a JSON value, in which {@link JsonText} keeps its text; or JSON text that is sent as it is
 * @returns the JSON text of a message's payload
 * @throws InvalidArgumentError when there is neither, the value is none that JSON can express, or the text is no JSON
 */
export function payloadTextOf(message: {
  readonly payload?: unknown;
  readonly payloadText?: string | undefined;
}): string {
  const { payload, payloadText } = message;
  if (payloadText === undefined) return jsonTextOf("payload", payload);
  mustBeText("payloadText", payloadText);
  // Half a surrogate pair would be sent as U+FFFD, and what is no JSON could end the frame it stands in.
  if (!payloadText.isWellFormed()) throw new InvalidArgumentError("payloadText", "holds half a character");
  try {
    JSON.parse(payloadText);
  } catch (error) {
    if (error instanceof SyntaxError) throw new InvalidArgumentError("payloadText", "is no JSON");
    throw error;
  }
  return payloadText;
}

/**
 * @param argument its name
 * @returns the JSON text of a value
 * @throws InvalidArgumentError when JSON cannot express it
 */
export function jsonTextOf(argument: string, value: unknown): string {
  if (value === undefined || typeof value === "function" || typeof value === "symbol")
    throw new InvalidArgumentError(argument, "is needed, as a value that JSON can express");
  try {
    return value instanceof JsonText ? payloadTextOf({ payloadText: value.json }) : writeJson(value);
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError)
      throw new InvalidArgumentError(argument, "is no value that JSON can express", { cause: error });
    throw error;
  }
}

/**
 * @returns the value of a header that carries an id or an address
 * @throws InvalidArgumentError when a header cannot carry it
 */
export function headerValue(argument: string, value: string): string {
  mustBeText(argument, value);
  if (VISIBLE_ASCII.test(value)) return value;
  throw new InvalidArgumentError(argument, "holds something else than visible ASCII characters");
}

/**
 * @returns a conversation's id as its header carries it: RFC 8187 where it is not ASCII
 * @throws InvalidArgumentError when it is none that a server takes
 */
export function conversationIdValue(argument: string, id: string): string {
  mustBeText(argument, id);
  const problem = plainTextProblem(id, 1, CONVERSATION_ID_MAX);
  if (problem !== null) throw new InvalidArgumentError(argument, problem);
  return encodeHeaderText(id);
}

/**
 * @returns one segment of a path
 * @throws InvalidArgumentError when it would be none
 */
export function pathSegment(argument: string, value: string): string {
  mustBeText(argument, value);
  if (!value.isWellFormed()) throw new InvalidArgumentError(argument, "holds half a character");
  if (value === "" || value === "." || value === "..") throw new InvalidArgumentError(argument, "is no id");
  return encodeURIComponent(value);
}

/** For a caller whose language does not check it. @throws InvalidArgumentError */
export function mustBeText(argument: string, value: unknown): asserts value is string {
  if (typeof value !== "string") throw new InvalidArgumentError(argument, "is no text");
}

/** For a caller whose language does not check it. @throws InvalidArgumentError */
export function mustBeObject(argument: string, value: unknown): void {
  if (typeof value !== "object" || value === null) throw new InvalidArgumentError(argument, "is missing, or no object");
}
