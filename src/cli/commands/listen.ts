/** `sallyport listen`: messages in, each acknowledged once it is written out. */
import { once } from "node:events";
import { type IncomingMessage, Refuse } from "../../client/index.ts";
import type { ExitCode } from "../terminal/errors.ts";
import type { Family } from "../session/command.ts";
import { wholeNumber } from "../session/input.ts";
import { oneLine } from "../terminal/output.ts";
import { outcomeOf } from "../devices/relay-outcome.ts";
import type { Session } from "../session/session.ts";

type ListenOptions = { count?: number; refuse?: string; device?: string };

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
  const relay = client.connect({
    onMessage(message) {
      if (left <= 0) throw new Error("enough messages");
      if (options.refuse !== undefined) throw new Refuse(options.refuse);
      output.item(
        { message: shownMessage(message) },
        `${message.fromAgentDid ?? message.fromSubject ?? "sallyport"}  ${oneLine(message.payloadText)}`,
      );
      left -= 1;
      // The acknowledgement is on its way when this turn ends; the socket closes after it.
      if (left === 0) setTimeout(() => relay.close(), 0);
    },
    onReceipt: ({ deliveryId, toAgentDid, status, reason }) => {
      output.item(
        { receipt: { deliveryId, toAgentDid, status, reason: reason ?? null } },
        `receipt  ${deliveryId}  ${status}  ${oneLine(reason ?? "")}`,
      );
    },
    onEvent: ({ event, payload }) =>
      output.item({ event, payload }, `event  ${oneLine(event)}  ${oneLine(JSON.stringify(payload))}`),
    onState: (state) => output.remark(state === "open" ? `${record.name} listens` : state),
    onError: (error) => output.remark(oneLine(error instanceof Error ? error.message : String(error))),
  });
  const interrupted = Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]).then(() => relay.close());
  const end = await relay.ended;
  void interrupted;
  return outcomeOf(end, options.device ?? null);
}

function shownMessage({ payloadText: _text, ...message }: IncomingMessage): Omit<IncomingMessage, "payloadText"> {
  return message;
}
