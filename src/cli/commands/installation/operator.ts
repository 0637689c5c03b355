/** `sallyport operator …`: keys of those who run the installation, each with a role. */
import { Argument } from "commander";
import type { ListedOperator } from "../../../client/index.ts";
import { OPERATOR_ROLES, type OperatorRole } from "../../../wire/operator-role.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm, wholeNumber } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import { table, timeText } from "../../terminal/output.ts";

const DAY_MS = 86_400_000;

/** Adds `operator create|list|revoke`. */
export const operatorFamily: Family = (program, run) => {
  const operators = program.command("operator").description("keys of those who run the installation, each with a role");

  operators
    .command("create")
    .description("make a key; it is shown this once (owner)")
    .argument("<name>", "who it is for, as the audit will name them")
    .addArgument(new Argument("<role>", "what it may").choices(OPERATOR_ROLES))
    .option("--expires-in-days <n>", "never otherwise", wholeNumber("--expires-in-days", 1, 3_650))
    .action((name: string, role: OperatorRole, { expiresInDays }: { expiresInDays?: number }) =>
      run((session) => create(session, name, role, expiresInDays)),
    );

  operators
    .command("list")
    .description("every operator, without the keys")
    .action(() => run(list));

  operators
    .command("revoke")
    .description("end a key, and every operator, invite and API key that was made with it (owner)")
    .argument("<id>", "as `operator list` shows it")
    .option("--yes", "do not ask", false)
    .action((id: string, { yes }: { yes: boolean }) => run((session) => revoke(session, id, yes)));
};

async function create(session: Session, name: string, role: OperatorRole, expiresInDays?: number): Promise<void> {
  const { operators } = await session.operator();
  const expiresAtMs = expiresInDays === undefined ? undefined : Date.now() + expiresInDays * DAY_MS;
  const made = await operators.create({ name, role, expiresAtMs });
  await session.output.result(made, made.key);
  session.output.remark(`id ${made.operatorId}; it is shown this once. Use it as SALLYPORT_OPERATOR_TOKEN.`);
}

async function list(session: Session): Promise<void> {
  const client = await session.operator();
  const operators: ListedOperator[] = [];
  let cursor: string | null = null;
  do {
    const page = await client.operators.list({ cursor: cursor ?? undefined });
    operators.push(...page.operators);
    cursor = page.nextCursor;
  } while (cursor !== null);
  const rows = operators.map((each) => [
    each.operatorId,
    each.name,
    each.role,
    each.revokedAtMs === undefined ? orNever(each.expiresAtMs) : `revoked ${timeText(each.revokedAtMs)}`,
    orNever(each.lastUsedAtMs),
    each.createdBy,
  ]);
  const words =
    operators.length === 0
      ? "no operators but the holder of OPERATOR_TOKEN"
      : table(["ID", "NAME", "ROLE", "EXPIRES", "LAST USED", "MADE BY"], rows);
  await session.output.result({ operators }, words);
}

async function revoke(session: Session, operatorId: string, yes: boolean): Promise<void> {
  const { operators } = await session.operator();
  await mustConfirm(session, yes, `End the operator ${operatorId}, and all that was made with its key?`);
  const revoked = await operators.revoke(operatorId);
  const { ended } = revoked;
  const more = `${ended.operators} operators, ${ended.invites} invites and ${ended.apiKeys} API keys`;
  await session.output.result(revoked, `${operatorId} is over, and so are ${more} that were made with it`);
}

const orNever = (ms: number | null): string => (ms === null ? "never" : timeText(ms));
