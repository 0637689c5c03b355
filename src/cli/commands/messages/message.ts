/** `sallyport send`, `sallyport delivery`: messages out. */
import { randomUUID } from "node:crypto";
import { type Message, RelayStoppedError, UnreachableError } from "../../../client/index.ts";
import { CliError, EXIT, usage } from "../../terminal/errors.ts";
import type { Family } from "../../session/command.ts";
import { readInput, wholeNumber } from "../../session/input.ts";
import { timeText } from "../../terminal/output.ts";
import { outcomeOf } from "../../devices/relay-outcome.ts";
import type { Session } from "../../session/session.ts";

/** A recipient that is all of a group. */
const GROUP_PREFIX = "grp_";

type SendOptions = {
  text?: string;
  file?: string;
  conversation?: string;
  idempotencyKey?: string;
  receiptUrl?: string;
  wait?: number;
  device?: string;
  group?: string;
};

/** Adds `send` and `delivery`. */
export const messageFamily: Family = (program, run) => {
  program
    .command("send")
    .description("send a message to an agent that trusts this one, or to all of a group")
    .argument("<to>", "DID of the recipient, the name of an agent of this machine, or the id of a group")
    .argument("[json]", "the message as JSON; - or nothing for standard input")
    .option("--text <text>", 'send {"text": …}')
    .option("--file <file>", "send the JSON in a file")
    .option("--conversation <id>", "conversation it belongs to")
    .option("--idempotency-key <key>", "the same key with the same message is sent once in 24 hours; made up otherwise")
    .option("--receipt-url <url>", "https address that the recipient may report the outcome to")
    .option("--wait <seconds>", "wait for the delivery, 0 to 15", wholeNumber("--wait", 0, 15))
    .option("--group <id>", "send in this group, which both are in")
    .option("--device <name>", "as a device of this machine, over the relay: without --wait and --idempotency-key")
    .action((to: string, json: string | undefined, options: SendOptions) =>
      run((session) => send(session, to, json, options)),
    );

  program
    .command("delivery")
    .description("what became of a message of the last 24 hours")
    .argument("<id>", "as `send` gave it")
    .action((id: string) => run((session) => delivery(session, id)));
};

async function send(session: Session, to: string, json: string | undefined, options: SendOptions): Promise<void> {
  if (options.device !== undefined && (options.wait ?? options.idempotencyKey) !== undefined)
    throw usage("a device sends over the relay, which knows neither --wait nor --idempotency-key");
  const toGroup = to.startsWith(GROUP_PREFIX);
  if (toGroup && (options.group ?? options.wait) !== undefined)
    throw usage("a message to all of a group takes neither --group nor --wait");
  const payloadText = await payloadOf(session, json, options);
  if (options.device !== undefined) {
    await sendAsDevice(session, options.device, to, payloadText, options);
    return;
  }
  const { client } = await session.agent();
  const common = {
    payloadText,
    conversationId: options.conversation,
    receiptUrl: options.receiptUrl,
    // A key of its own makes the one repetition below safe.
    idempotencyKey: options.idempotencyKey ?? randomUUID(),
  };
  if (toGroup) {
    const sent = await sendOnce(() => client.sendToGroup({ ...common, groupId: to }));
    const ids = sent.deliveries.map(({ agentDid, deliveryId }) => `${deliveryId} to ${agentDid}`);
    await session.output.result(sent, ids.length === 0 ? "nobody else is in the group" : ["on its way:", ...ids]);
    return;
  }
  const recipient = to.startsWith("did:") ? to : await didOf(session, to);
  const message: Message = { ...common, to: recipient, groupId: options.group, waitSeconds: options.wait };
  const accepted = await sendOnce(() => client.send(message));
  await session.output.result(
    accepted,
    `${accepted.state === "delivered" ? "delivered" : "on its way"}: ${accepted.deliveryId}`,
  );
}

/** Hands it in over the relay. What is pushed to the device meanwhile stays unacknowledged, and comes again. */
async function sendAsDevice(
  session: Session,
  name: string,
  to: string,
  payloadText: string,
  { conversation, receiptUrl, group }: SendOptions,
): Promise<void> {
  const { client } = await session.device(name);
  const addressee = to.startsWith(GROUP_PREFIX)
    ? { groupId: to }
    : { to: to.startsWith("did:") ? to : await didOf(session, to), groupId: group };
  const relay = client.connect({
    onMessage: () => Promise.reject(new Error("this command only sends")),
    onError: () => undefined,
  });
  try {
    const message = { ...addressee, payloadText, conversationId: conversation, replyTo: receiptUrl };
    const { deliveryId } = await relay.enqueue(message);
    await session.output.result({ accepted: true, deliveryId }, `on its way: ${deliveryId ?? "-"}`);
  } catch (error) {
    // Why it stopped says more than that it did.
    if (error instanceof RelayStoppedError) outcomeOf(await relay.ended, name);
    throw error;
  } finally {
    relay.close();
  }
}

/** A lost answer is asked for again: under one key the message is sent once. */
async function sendOnce<T>(attempt: () => Promise<T>): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    return attempt();
  }
}

async function delivery(session: Session, id: string): Promise<void> {
  const { client } = await session.agent();
  const found = await client.deliveryStatus(id);
  const why = found.reason === undefined || found.reason === null ? "" : `, ${found.reason}`;
  await session.output.result(
    found,
    `${found.state}${why} (attempts: ${found.attempts ?? "unknown at the moment"}, ${timeText(found.updatedAtMs)})`,
  );
}

async function payloadOf(session: Session, json: string | undefined, { text, file }: SendOptions): Promise<string> {
  if ([json, text, file].filter((given) => given !== undefined).length > 1)
    throw usage("give the message once: as JSON, by --text, or by --file");
  if (text !== undefined) return JSON.stringify({ text });
  const source = file ?? (json === undefined || json === "-" ? "-" : null);
  const payloadText = source === null ? (json ?? "") : await readInput(session, source);
  try {
    JSON.parse(payloadText);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw usage("the message is no JSON; for words use --text", error);
  }
  return payloadText;
}

async function didOf(session: Session, name: string): Promise<string> {
  const record = await session.home.agents.get(name);
  if (record !== null) return record.agentDid;
  throw new CliError("NO_AGENT", `${name} is neither a DID nor an agent of this machine`, {
    exitCode: EXIT.usage,
    advice: "`sallyport pair peers` lists the agents that you can write to.",
  });
}
