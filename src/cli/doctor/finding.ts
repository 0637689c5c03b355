/** What `doctor` found: a verdict with what to do about it. */
import { shownFailure } from "../terminal/errors.ts";

/** `skip`: could not be looked at, because of something that is told elsewhere. */
export type Verdict = "ok" | "warn" | "fail" | "skip";

export type Finding = {
  readonly check: string;
  readonly verdict: Verdict;
  readonly detail: string;
  readonly advice: string | null;
};

export const finding = (check: string, verdict: Verdict, detail: string, advice: string | null = null): Finding => ({
  check,
  verdict,
  detail,
  advice,
});

export const ok = (check: string, detail: string): Finding => finding(check, "ok", detail);

/** @returns the finding of a check that failed by throwing */
export function failed(check: string, error: unknown): Finding {
  const { message, code, advice } = shownFailure(error);
  return finding(check, "fail", `${message} (${code})`, advice);
}
