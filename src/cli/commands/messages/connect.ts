/** `sallyport connect`: stands between an agent's relay and a program on this machine, written in anything. */
import { once } from "node:events";
import type { Command } from "commander";
import { startApi } from "../../../connect/api/server.ts";
import { createComplaints } from "../../../connect/complaints.ts";
import { type Connector, startConnector } from "../../../connect/connector.ts";
import type { Delivery } from "../../../connect/message.ts";
import { createOutgoing, type Outgoing } from "../../../connect/outgoing.ts";
import { type InboxStore, openInboxStore } from "../../../connect/store/inbox.ts";
import { openOutboxStore, type OutboxStore } from "../../../connect/store/outbox.ts";
import { type ConnectFiles, connectFiles } from "../../connect/files.ts";
import { type ConnectOptions, LISTEN_DEFAULT, withConnectOptions } from "../../connect/options.ts";
import { type ChosenTarget, chosenTarget } from "../../connect/target.ts";
import { outcomeOf } from "../../devices/relay-outcome.ts";
import type { Family } from "../../session/command.ts";
import { addService } from "./connect-service.ts";
import type { Session } from "../../session/session.ts";
import { CliError, EXIT, type ExitCode, usage } from "../../terminal/errors.ts";

/** Messages that are remembered for replies to them, beside those in the inbox. */
const REMEMBERED_MAX = 10_000;

const EXAMPLES = `
Examples:
  sallyport connect --forward-to http://127.0.0.1:3000/messages
  sallyport connect --forward-to http://127.0.0.1:18789/hooks/agent --format openclaw --header-file ~/.openclaw-header
  sallyport connect --exec 'python3 handle.py' --inbox
  sallyport connect                     and programs fetch: GET http://127.0.0.1:${LISTEN_DEFAULT}/v1/inbox

What the program answers:
  2xx, exit 0                           handled: acknowledged, and the sender is told so
  408, 425, 429, 5xx, none, other exits later: again after a while, or after Retry-After
  any other 4xx, exit 65                refused: a dead letter; {"reason": …} or the last line of stderr is read by the sender
`;

/** Adds `connect`. */
export const connectFamily: Family = (program, run) => {
  const connect = withConnectOptions(
    program
      .command("connect")
      .description(
        "hand messages to a program on this machine, and let it send: over HTTP, as a command, or fetched by it",
      ),
  )
    .addHelpText("after", EXAMPLES)
    .action((options: ConnectOptions) => run((session) => connectAgent(session, options)));
  addStatus(connect, run);
  addService(connect, run);
};

function addStatus(connect: Command, run: Parameters<Family>[1]): void {
  connect
    .command("status")
    .description("what the running connector of this agent says of itself")
    .action(() => run(status));
}

/** What a connector works with, opened before it connects. */
type Opened = {
  readonly files: ConnectFiles;
  readonly chosen: ChosenTarget;
  readonly inbox: InboxStore | null;
  readonly outbox: OutboxStore | null;
};

async function connectAgent(session: Session, options: ConnectOptions): Promise<ExitCode> {
  const { output } = session;
  if (options.metrics === true && options.listen === false)
    throw usage("--metrics is served by the local API: without --no-listen");
  const { record, client } = await session.agent();
  const files = connectFiles(session.home.path, record.name);
  const chosen = await chosenTarget(session, options, await files.key());
  await files.claim();
  const opened: Opened = {
    files,
    chosen,
    inbox: options.inbox === true ? opening(() => openInboxStore(files.inbox)) : null,
    outbox: options.outbox === true ? opening(() => openOutboxStore(files.outbox)) : null,
  };
  const complaints = createComplaints((line) => output.remark(line), Date.now);
  const memory = createMemory(opened.inbox);
  output.remark(
    `${record.name}: messages ${chosen.words}${opened.inbox === null ? "" : ", from the inbox on this disk"}`,
  );
  const connector = startConnector({
    client,
    target: chosen.target,
    inbox: opened.inbox,
    complaints,
    onState: (state) => output.remark(state === "open" ? `${record.name} listens` : state),
    onMessage: memory.remember,
    onReceipt: (receipt) => output.remark(receiptWords(receipt)),
    now: Date.now,
  });
  const outgoing = createOutgoing({ client, outbox: opened.outbox, complaints, now: Date.now });
  const api = await apiOf(session, options, { opened, connector, outgoing, memory, complaints, client });
  // Resolves when somebody ends it; the relay may end by itself before.
  void Promise.race([once(process, "SIGINT"), once(process, "SIGTERM")]).then(() => connector.stop());
  const end = await connector.ended;
  await api?.close();
  await Promise.all([connector.stop(), outgoing.stop()]);
  opened.inbox?.close();
  opened.outbox?.close();
  return outcomeOf(end, null);
}

function receiptWords(receipt: { deliveryId: string; status: string; reason?: string | undefined }): string {
  return `receipt: ${receipt.deliveryId} ${receipt.status}${receipt.reason === undefined ? "" : ` (${receipt.reason})`}`;
}

/** A store that cannot be opened is this machine's doing. */
function opening<T>(open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw new CliError("STORE", error instanceof Error ? error.message : String(error), {
      exitCode: EXIT.setup,
      cause: error,
    });
  }
}

type Memory = { remember(message: Delivery): void; find(deliveryId: string): Delivery | null };

/** For replies: the latest messages, without their payloads. */
function createMemory(inbox: InboxStore | null): Memory {
  const latest = new Map<string, Delivery>();
  return {
    remember(message) {
      latest.delete(message.deliveryId);
      latest.set(message.deliveryId, { ...message, payloadText: "null" });
      const [oldest] = latest.keys();
      if (latest.size > REMEMBERED_MAX && oldest !== undefined) latest.delete(oldest);
    },
    find: (deliveryId) => latest.get(deliveryId) ?? inbox?.get(deliveryId)?.message ?? null,
  };
}

type Running = {
  readonly opened: Opened;
  readonly connector: Connector;
  readonly outgoing: Outgoing;
  readonly memory: Memory;
  readonly complaints: ReturnType<typeof createComplaints>;
  readonly client: Awaited<ReturnType<Session["agent"]>>["client"];
};

async function apiOf(session: Session, options: ConnectOptions, running: Running) {
  if (options.listen === false) return null;
  const { opened, connector, outgoing, memory, complaints, client } = running;
  const { files, chosen, inbox, outbox } = opened;
  const says = () => ({
    agentDid: client.agentDid,
    relay: connector.relay.state(),
    messages: connector.counters.read(),
    inbox: inbox?.usage() ?? null,
    outbox: outbox?.usage() ?? null,
    waiting: chosen.pull?.depth() ?? null,
    wrong: complaints.current(),
  });
  const gauges = () => ({
    sallyport_connect_relay_open: {
      help: "1 while the relay socket is open.",
      value: connector.relay.state() === "open" ? 1 : 0,
    },
    sallyport_connect_inbox_messages: { help: "Messages that wait in the inbox.", value: inbox?.usage().messages ?? 0 },
    sallyport_connect_outbox_messages: {
      help: "Messages that wait in the outbox.",
      value: outbox?.usage().messages ?? 0,
    },
  });
  const deps = {
    outgoing,
    pull: chosen.pull,
    received: memory.find,
    peers: () => client.pairing.peers(),
    status: says,
    metrics: options.metrics === true ? () => connector.counters.openMetrics(gauges()) : null,
  };
  const onDefect = (error: unknown): void => session.output.remark(`local API: ${String(error)}`);
  try {
    const api = await startApi({ port: options.listen, token: await files.token(), deps, onDefect });
    await files.writeAddress({ port: api.port, pid: process.pid });
    session.output.remark(`local API on http://127.0.0.1:${api.port}, its token in ${files.tokenFile}`);
    return api;
  } catch (error) {
    connector.relay.close();
    await connector.stop();
    throw new CliError(
      "PORT",
      `port ${options.listen} cannot be listened on: ${error instanceof Error ? error.message : String(error)}`,
      {
        exitCode: EXIT.setup,
        advice: "Choose another with --listen PORT, or none with --no-listen.",
        cause: error,
      },
    );
  }
}

async function status(session: Session): Promise<void> {
  const record = await session.agentRecord();
  const files = connectFiles(session.home.path, record.name);
  const address = await files.address();
  const said = address === null ? null : await askStatus(address.port, await files.token());
  if (said === null) {
    throw new CliError("NOT_CONNECTED", `no connector of ${record.name} answers on this machine`, {
      exitCode: EXIT.unavailable,
      advice: "Start one: `sallyport connect --help`. One with --no-listen cannot be asked.",
    });
  }
  const { relay, messages, inbox, outbox, wrong } = said as {
    relay: string;
    messages: Record<string, number>;
    inbox: { messages: number } | null;
    outbox: { messages: number } | null;
    wrong: { topic: string; text: string }[];
  };
  await session.output.result(said, [
    `${record.name}: relay ${relay}; handled ${messages["handled"]}, refused ${messages["refused"]}, later ${messages["later"]}`,
    ...(inbox === null ? [] : [`inbox: ${inbox.messages} waiting`]),
    ...(outbox === null ? [] : [`outbox: ${outbox.messages} waiting`]),
    ...wrong.map(({ topic, text }) => `wrong: ${topic}: ${text}`),
  ]);
}

async function askStatus(port: number, token: string): Promise<unknown> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/v1/status`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    return response.ok ? await response.json() : null;
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}
