/** `sallyport doctor`: what is wrong with this setup, and what to do about it. */
import { checkup } from "../../doctor/checks.ts";
import { EXIT, type ExitCode } from "../../terminal/errors.ts";
import type { Family } from "../../session/command.ts";
import type { Finding, Verdict } from "../../doctor/finding.ts";
import type { Session } from "../../session/session.ts";

const MARK: Record<Verdict, string> = { ok: "ok  ", warn: "warn", fail: "FAIL", skip: "-   " };

/** Adds `doctor`. */
export const doctorFamily: Family = (program, run) => {
  program
    .command("doctor")
    .description(
      "look at the settings, the clock, the keys, the tokens, the server and the trust; exit code 7 if something is wrong",
    )
    .action(() => run(doctor));
};

async function doctor(session: Session): Promise<ExitCode> {
  const { output } = session;
  const findings: Finding[] = [];
  for await (const found of checkup(session)) {
    findings.push(found);
    if (!output.json) await output.item(found, lines(found));
  }
  const count = (verdict: Verdict): number => findings.filter((found) => found.verdict === verdict).length;
  const healthy = count("fail") === 0;
  const summary = healthy ? "nothing is wrong" : `${count("fail")} wrong`;
  const data = { healthy, findings };
  await output.result(data, ["", `${summary}${count("warn") === 0 ? "" : `, ${count("warn")} to look at`}`]);
  return healthy ? EXIT.ok : EXIT.unhealthy;
}

function lines({ check, verdict, detail, advice }: Finding): string[] {
  return [`${MARK[verdict]}  ${check}: ${detail}`, ...(advice === null ? [] : [`      → ${advice}`])];
}
