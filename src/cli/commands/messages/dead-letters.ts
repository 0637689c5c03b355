/** `sallyport dead-letters …`: what could not be delivered. */
import { type DeadLetter, type DeadLetters, JsonText } from "../../../client/index.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm } from "../../session/input.ts";
import { table, timeText } from "../../terminal/output.ts";
import { usage } from "../../terminal/errors.ts";
import type { Session } from "../../session/session.ts";

type Whose = { of?: string };

/** Adds `dead-letters list|replay|purge`. */
export const deadLettersFamily: Family = (program, run) => {
  const family = program.command("dead-letters").description("what could not be delivered to an agent");
  const ofOption = ["--of <did>", "another agent's (operator)"] as const;

  family
    .command("list")
    .description("newest first")
    .option(...ofOption)
    .action((options: Whose) => run((session) => list(session, options)));

  family
    .command("replay")
    .description("put them back into the queue")
    .argument("[ids...]")
    .option("--all", "every one", false)
    .option(...ofOption)
    .action((ids: string[], options: Whose & { all: boolean }) => run((session) => replay(session, ids, options)));

  family
    .command("purge")
    .description("throw them away")
    .argument("[ids...]")
    .option("--all", "every one", false)
    .option("--yes", "do not ask", false)
    .option(...ofOption)
    .action((ids: string[], options: Whose & { all: boolean; yes: boolean }) =>
      run((session) => purge(session, ids, options)),
    );
};

async function list(session: Session, options: Whose): Promise<void> {
  const letters = await every(await lettersOf(session, options));
  const rows = letters.map(({ id, fromAgentDid, reason, attempts, deadAtMs }) => [
    id,
    fromAgentDid ?? "-",
    reason,
    String(attempts),
    timeText(deadAtMs),
  ]);
  await session.output.result(
    { deadLetters: letters.map(shown) },
    letters.length === 0 ? "none" : table(["ID", "FROM", "REASON", "ATTEMPTS", "DEAD SINCE"], rows),
  );
}

/** `payload` is the sender's JSON, `payloadText` its text to the byte. */
function shown({ payloadText, ...letter }: DeadLetter): Record<string, unknown> {
  return payloadText === undefined ? letter : { ...letter, payload: new JsonText(payloadText), payloadText };
}

async function replay(session: Session, ids: string[], options: Whose & { all: boolean }): Promise<void> {
  const letters = await lettersOf(session, options);
  const chosen = await chosenIds(letters, ids, options.all);
  for (const id of chosen) await letters.replay(id);
  await session.output.result({ replayed: chosen }, `${chosen.length} back in the queue`);
}

async function purge(session: Session, ids: string[], options: Whose & { all: boolean; yes: boolean }): Promise<void> {
  const letters = await lettersOf(session, options);
  const chosen = await chosenIds(letters, ids, options.all);
  if (chosen.length > 0) await mustConfirm(session, options.yes, `Throw ${chosen.length} away permanently?`);
  for (const id of chosen) await letters.purge(id);
  await session.output.result({ purged: chosen }, `${chosen.length} thrown away`);
}

async function lettersOf(session: Session, { of }: Whose): Promise<DeadLetters> {
  if (of !== undefined) return (await session.operator()).deadLettersOf(of);
  return (await session.agent()).client.deadLetters;
}

async function chosenIds(letters: DeadLetters, ids: string[], all: boolean): Promise<string[]> {
  if (all === ids.length > 0) throw usage("give the ids, or --all");
  return all ? (await every(letters)).map(({ id }) => id) : ids;
}

async function every(letters: DeadLetters): Promise<DeadLetter[]> {
  const found: DeadLetter[] = [];
  let cursor: string | undefined;
  do {
    const page = await letters.list({ cursor });
    found.push(...page.deadLetters);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  return found;
}
