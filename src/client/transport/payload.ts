/** The JSON text of a message's payload. */

/**
 * @param message a JSON value, or JSON text that is sent as it is
 * @throws TypeError when there is neither, or the value is none that JSON can express
 */
export function payloadTextOf(message: {
  readonly payload?: unknown;
  readonly payloadText?: string | undefined;
}): string {
  const text = message.payloadText ?? jsonText(message.payload);
  if (text === undefined) throw new TypeError("a message needs a payload that JSON can express");
  return text;
}

/** The type of `JSON.stringify` does not say that it gives undefined for undefined, a function or a symbol. */
const jsonText: (value: unknown) => string | undefined = JSON.stringify;
