/** What `doctor` found: a verdict with what to do about it. */
import { shownFailure } from "../terminal/errors.ts";

/** `skip`: could not be looked at, because of what another finding says. */
export type Verdict = "ok" | "warn" | "fail" | "skip";

/** What one check has found. `advice` is what the user can do, null where there is nothing to do. */
export type Finding = {
  readonly check: string;
  readonly verdict: Verdict;
  readonly detail: string;
  readonly advice: string | null;
};

/** @returns a finding; without advice where none is given */
export const finding = (check: string, verdict: Verdict, detail: string, advice: string | null = null): Finding => ({
  check,
  verdict,
  detail,
  advice,
});

/** @returns the finding of a check that found nothing wrong */
export const ok = (check: string, detail: string): Finding => finding(check, "ok", detail);

/** @returns the finding of a check that failed by throwing */
export function failed(check: string, error: unknown): Finding {
  const { message, code, advice } = shownFailure(error);
  return finding(check, "fail", `${message} (${code})`, advice);
}
