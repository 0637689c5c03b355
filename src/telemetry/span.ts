/** Spans of this program's own, beside those that the platform makes of every call that goes out. */
import * as platform from "cloudflare:workers";

/** Absent on a runtime that is older than custom spans; the work is then done without one. */
const tracing: Tracing | undefined = platform.tracing;

export type SpanAttributes = Record<string, string | number | boolean | undefined>;

/**
 * Does `work` inside a span, which ends with it. Attributes carry names and states, never a secret, a token or a body.
 *
 * @returns what `work` returns
 * @throws what `work` throws; the span ends all the same
 */
export function inSpan<T>(name: string, work: () => T): T {
  // Where nobody traces this request a span would be made for nothing, a dozen times.
  return tracing?.getActiveSpan()?.isTraced === true ? tracing.enterSpan(name, work) : work();
}

/** {@link inSpan} for the many steps of one request: whether anybody traces it is asked once. */
export function spansOfRequest(): typeof inSpan {
  return tracing?.getActiveSpan()?.isTraced === true ? inSpan : (_name, work) => work();
}

/** Says something about the request as a whole, on whichever span is the innermost now. */
export function annotateSpan(attributes: SpanAttributes): void {
  const span = tracing?.getActiveSpan();
  if (span?.isTraced === true) span.setAttributes(attributes);
}
