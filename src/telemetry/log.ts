/** Structured logs: one JSON line an event on the console. Callers pass flat fields and never a secret, a token, a body or a nonce. */

export type Fields = Record<string, string | number | boolean | null | undefined>;

export type Log = {
  info(event: string, fields?: Fields): void;
  warn(event: string, fields?: Fields): void;
  error(event: string, fields?: Fields): void;
  /** A log whose lines carry these fields too. */
  with(fields: Fields): Log;
};

/** A log that writes to the console; `base` goes into every line. */
export function createLog(base: Fields = {}): Log {
  return {
    info: (event, fields) => console.log(JSON.stringify({ level: "info", event, ...base, ...fields })),
    warn: (event, fields) => console.warn(JSON.stringify({ level: "warn", event, ...base, ...fields })),
    error: (event, fields) => console.error(JSON.stringify({ level: "error", event, ...base, ...fields })),
    with: (fields) => createLog({ ...base, ...fields }),
  };
}

/** What may be logged of a caught value: name and message, and the code where there is one. */
export function errorFields(error: unknown): Fields {
  if (!(error instanceof Error)) return { error: "not an Error" };
  const code = (error as { code?: unknown }).code;
  return {
    error: `${error.name}: ${error.message}`.slice(0, 500),
    ...(typeof code === "string" ? { errorCode: code } : {}),
  };
}
