/** `sallyport inbox`: what the connector has on this machine's disk. */
import { existsSync } from "node:fs";
import { type InboxEntry, type InboxState, type InboxStore, openInboxStore } from "../../../connect/store/inbox.ts";
import { JsonText } from "../../../client/index.ts";
import { connectFiles } from "../../connect/files.ts";
import type { Family } from "../../session/command.ts";
import { wholeNumber } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import { CliError, EXIT, usage } from "../../terminal/errors.ts";
import { table, timeText } from "../../terminal/output.ts";

const STATES: readonly InboxState[] = ["waiting", "handled", "failed"];
const LIST_DEFAULT = 50;
const DID_SHOWN = 8;

/** Adds `inbox`. */
export const inboxFamily: Family = (program, run) => {
  const inbox = program.command("inbox").description("messages that `connect --inbox` has on this disk");
  inbox
    .command("list")
    .description("the newest first")
    .option("--state <state>", `${STATES.join(", ")}; all by default`)
    .option("--limit <n>", "how many", wholeNumber("--limit", 1, 10_000), LIST_DEFAULT)
    .action((options: { state?: string; limit: number }) => run((session) => list(session, options)));
  inbox
    .command("show")
    .description("one message, with its payload")
    .argument("<id>", "its delivery id")
    .action((id: string) => run((session) => show(session, id)));
  inbox
    .command("retry")
    .description("hand it to the program again, now")
    .argument("<id>", "its delivery id")
    .action((id: string) => run((session) => change(session, id, "retry")));
  inbox
    .command("drop")
    .description("throw it away; its sender hears that it failed")
    .argument("<id>", "its delivery id")
    .action((id: string) => run((session) => change(session, id, "drop")));
};

async function withInbox<T>(session: Session, work: (inbox: InboxStore) => T): Promise<T> {
  const { name } = await session.agentRecord();
  const { inbox: path } = connectFiles(session.home.path, name);
  if (!existsSync(path)) {
    throw new CliError("NO_INBOX", `${name} has no inbox on this machine`, {
      exitCode: EXIT.setup,
      advice: "`sallyport connect --inbox …` makes one.",
    });
  }
  const inbox = openInboxStore(path);
  try {
    return work(inbox);
  } finally {
    inbox.close();
  }
}

async function list(session: Session, { state, limit }: { state?: string; limit: number }): Promise<void> {
  const wanted = STATES.find((each) => each === state) ?? null;
  if (state !== undefined && wanted === null) throw usage(`--state is one of ${STATES.join(", ")}`);
  const entries = await withInbox(session, (inbox) => inbox.list(wanted, limit));
  const rows = entries.map(({ deliveryId, sender, state: at, attempts, receivedAtMs }) => [
    deliveryId,
    sender.startsWith("did:") ? `…${sender.slice(-DID_SHOWN)}` : sender,
    at,
    String(attempts),
    timeText(receivedAtMs),
  ]);
  const words = rows.length === 0 ? "nothing there" : table(["ID", "FROM", "STATE", "TRIES", "CAME"], rows);
  await session.output.result({ messages: entries }, words);
}

async function show(session: Session, id: string): Promise<void> {
  const found = await withInbox(session, (inbox) => inbox.get(id));
  if (found === null) throw unknownMessage(id);
  const { entry, message } = found;
  const { payloadText, ...rest } = message;
  await session.output.result({ ...entry, message: { ...rest, payload: new JsonText(payloadText) } }, [
    ...wordsOf(entry),
    payloadText,
  ]);
}

function wordsOf({ deliveryId, sender, state, attempts, reason, receivedAtMs }: InboxEntry): string[] {
  return [
    `${deliveryId} from ${sender}`,
    `${state}, ${attempts} attempts, came ${timeText(receivedAtMs)}${reason === null ? "" : `: ${reason}`}`,
  ];
}

async function change(session: Session, id: string, what: "retry" | "drop"): Promise<void> {
  const isThere = await withInbox(session, (inbox) => inbox[what](id, Date.now()));
  if (!isThere) throw unknownMessage(id);
  await session.output.result(
    { deliveryId: id, [what]: true },
    what === "retry" ? `${id} goes to the program again` : `${id} is dropped`,
  );
}

function unknownMessage(id: string): CliError {
  return new CliError("NO_MESSAGE", `the inbox has no such message: ${id}`, {
    exitCode: EXIT.refused,
    advice: "`sallyport inbox list` shows them. What is handled is kept for a day, and not handed over again.",
  });
}
