/** What became of a call. */
import type { ProblemCode } from "../wire/problem.ts";

/** What became of a call; plain data, so that it can cross from a gate to the Worker. */
export type Reply =
  | { ok: true; result: unknown }
  | {
      ok: false;
      code: ProblemCode;
      message: string;
      /** No such method: JSON-RPC has a code of its own for it. */
      unknownMethod?: true;
      retryAfterMs?: number;
      data?: Readonly<Record<string, unknown>>;
    };
