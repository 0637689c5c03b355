/** `sallyport listen`: messages in, each acknowledged once it is written out. */
import { once } from "node:events";
import { type IncomingMessage, JsonText, Refuse } from "../../../client/index.ts";
import type { ExitCode } from "../../terminal/errors.ts";
import type { Family } from "../../session/command.ts";
import { wholeNumber } from "../../session/input.ts";
import { outcomeOf } from "../../devices/relay-outcome.ts";
import type { Session } from "../../session/session.ts";

type ListenOptions = { count?: number; refuse?: string; device?: string };

/** Adds `listen`. */
export const listenFamily: Family = (program, run) => {
  program
    .command("listen")
    .description(
      "stay connected and write out what comes in, one message a line; each is acknowledged when it is written",
    )
    .option("--count <n>", "end after that many messages", wholeNumber("--count", 1, 1e9))
    .option("--refuse <reason>", "refuse every message for this reason, to see what its sender sees")
    .option("--device <name>", "as a device of this machine, beside its agent")
    .action((options: ListenOptions) => run((session) => listen(session, options)));
};

async function listen(session: Session, options: ListenOptions): Promise<ExitCode> {
  const { output } = session;
  const { record, client } =
    options.device === undefined ? await session.agent() : await session.device(options.device);
  let left = options.count ?? Number.POSITIVE_INFINITY;
  let unwritten: unknown = null;

  /** What cannot be written ends the command: the message that it was stays unacknowledged, and comes again. */
  const write = async (data: unknown, words: string): Promise<void> => {
    try {
      await output.item(data, words);
    } catch (error) {
      unwritten ??= error;
      relay.close();
      throw error;
    }
  };
  const remark = (error: unknown): void => output.remark(error instanceof Error ? error.message : String(error));

  const relay = client.connect({
    async onMessage(message) {
      // Taken before it is written: messages of several senders are written at once.
      if (left <= 0 || unwritten !== null) throw new Error("enough messages");
      if (options.refuse !== undefined) throw new Refuse(options.refuse);
      left -= 1;
      await write({ message: shownMessage(message) }, shownWords(message));
      // The acknowledgement is on its way when this turn ends; the socket closes after it.
      if (left === 0) setTimeout(() => relay.close(), 0);
    },
    onReceipt({ deliveryId, toAgentDid, status, reason }) {
      const receipt = { deliveryId, toAgentDid, status, reason: reason ?? null };
      const words = `receipt  ${deliveryId}  ${status}  ${reason ?? ""}`;
      // Confirmed when it is written, as messages are.
      return write({ receipt }, words);
    },
    onEvent({ event, payload }) {
      write({ event, payload }, `event  ${event}  ${JSON.stringify(payload)}`).catch(remark);
    },
    onState: (state) => output.remark(state === "open" ? `${record.name} listens` : state),
    onError: remark,
  });
  const interrupted = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]).then(() => relay.close());
  const end = await relay.ended;
  void interrupted;
  if (unwritten !== null) throw unwritten;
  return outcomeOf(end, options.device ?? null);
}

/** `payload` is the sender's JSON, `payloadText` its text to the byte. */
function shownMessage({ payloadText, ...message }: IncomingMessage): Record<string, unknown> {
  return { ...message, payload: new JsonText(payloadText), payloadText };
}

function shownWords({ fromAgentDid, fromSubject, payloadText }: IncomingMessage): string {
  return `${fromAgentDid ?? fromSubject ?? "sallyport"}  ${payloadText}`;
}
