/** `sallyport audit`: who did what to whom. */
import type { AuditEntry } from "../../../client/index.ts";
import type { Family } from "../../session/command.ts";
import { moment, wholeNumber } from "../../session/input.ts";
import { table, timeText, type Words } from "../../terminal/output.ts";
import type { Session } from "../../session/session.ts";

const PAGE_MAX = 100;

type AuditOptions = {
  subject?: string;
  action?: string;
  since?: number;
  until?: number;
  limit: number;
  cursor?: string;
};

/** Adds `audit list`, which is what `audit` alone does. */
export const auditFamily: Family = (program, run) => {
  const log = program.command("audit").description("who did what to whom (operator)");

  log
    .command("list", { isDefault: true })
    .description("newest first")
    .option("--subject <subject>", "whom it was done to, e.g. agent:DID or device:DID/ID")
    .option("--action <action>", "what was done, e.g. device.token.rotate")
    .option(
      "--since <time>",
      "from this time on, e.g. 2026-12-01T09:30:00Z, or 12h for that long ago",
      moment("--since"),
    )
    .option("--until <time>", "up to this time", moment("--until"))
    .option("--limit <n>", "how many", wholeNumber("--limit", 1, 1e6), 50)
    .option("--cursor <cursor>", "go on where an earlier list has ended")
    .action((options: AuditOptions) => run((session) => audit(session, options)));
};

async function audit(
  session: Session,
  { subject, action, since: sinceMs, until: untilMs, limit, cursor }: AuditOptions,
): Promise<void> {
  const operator = await session.operator();
  const entries: AuditEntry[] = [];
  let next: string | null = cursor ?? null;
  do {
    const rest = { limit: Math.min(PAGE_MAX, limit - entries.length), cursor: next ?? undefined };
    const query = { subject, action, sinceMs, untilMs, ...rest };
    const page = await operator.audit(query);
    entries.push(...page.entries);
    next = page.nextCursor;
  } while (next !== null && entries.length < limit);
  await session.output.result({ entries, nextCursor: next }, words(entries));
  if (next !== null) session.output.remark(`there is more: --cursor ${next}`);
}

function words(entries: readonly AuditEntry[]): Words {
  if (entries.length === 0) return "nothing";
  const rows = entries.map(({ atMs, actor, operator, action, subject, origin, result, details }) => [
    timeText(atMs),
    operator ?? actor,
    action,
    subject ?? "-",
    result,
    origin ?? "-",
    Object.entries(details)
      .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
      .join(" "),
  ]);
  return table(["WHEN", "WHO", "WHAT", "WHOM", "RESULT", "FROM", "DETAILS"], rows);
}
