/** `sallyport pair …`: how two agents come to trust each other. */
import { setTimeout as sleep } from "node:timers/promises";
import type { PairProfile } from "../../../client/index.ts";
import { CliError, EXIT, usage } from "../../terminal/errors.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm, readInput, wholeNumber } from "../../session/input.ts";
import { table, timeText } from "../../terminal/output.ts";
import type { Session } from "../../session/session.ts";

const ASK_EVERY_MS = 1_000;

type ProfileOptions = { humanName?: string };

/** Adds `pair start|confirm|status|remove|peers`. */
export const pairFamily: Family = (program, run) => {
  const pair = program.command("pair").description("make and end trust between agents");

  pair
    .command("start")
    .description("make a ticket for another agent; it works once")
    .option("--ttl-seconds <n>", "how long the ticket lives, 1 to 900 (300)", wholeNumber("--ttl-seconds", 1, 900))
    .option("--allow <did>", "the only agent that may use it")
    .option("--human-name <name>", "how you introduce yourself")
    .option("--wait", "wait until it is confirmed", false)
    .action((options: ProfileOptions & { ttlSeconds?: number; allow?: string; wait: boolean }) =>
      run((session) => start(session, options)),
    );

  pair
    .command("confirm")
    .description("use a ticket, and trust the agent that made it")
    .argument("<ticket>", "as the other side gave it; - for standard input")
    .option("--human-name <name>", "how you introduce yourself")
    .action((ticket: string, options: ProfileOptions) => run((session) => confirm(session, ticket, options)));

  pair
    .command("status")
    .description("whether a ticket has been used")
    .argument("<ticket>", "- for standard input")
    .action((ticket: string) => run((session) => status(session, ticket)));

  pair
    .command("remove")
    .description("end the trust with a peer, both ways")
    .argument("<did>", "DID of the peer")
    .option("--yes", "do not ask", false)
    .action((did: string, options: { yes: boolean }) => run((session) => remove(session, did, options.yes)));

  pair
    .command("peers")
    .description("the agents that trust this one")
    .action(() => run(peers));
};

async function start(
  session: Session,
  options: ProfileOptions & { ttlSeconds?: number; allow?: string; wait: boolean },
): Promise<void> {
  const { record, client } = await session.agent();
  const profile = await profileOf(session, record.name, options);
  const request = { profile, ttlSeconds: options.ttlSeconds, allowResponderAgentDid: options.allow };
  const { ticket, expiresAtMs } = await client.pairing.start(request);
  const words = [
    ticket,
    "",
    `Give it to the other side by a way that you trust, until ${timeText(expiresAtMs)}:`,
    "  sallyport pair confirm TICKET",
  ];
  if (!options.wait) {
    await session.output.result({ ticket, expiresAtMs }, words);
    return;
  }
  await session.output.item({ ticket, expiresAtMs }, words);
  while ((await client.pairing.status(ticket)) === "pending") {
    if (Date.now() > expiresAtMs) {
      throw new CliError("NOT_CONFIRMED", "the ticket was not used in time", {
        exitCode: EXIT.refused,
        advice: "Make another one.",
      });
    }
    await sleep(ASK_EVERY_MS);
  }
  await session.output.item({ status: "confirmed" }, "confirmed");
}

async function confirm(session: Session, given: string, options: ProfileOptions): Promise<void> {
  const ticket = await ticketOf(session, given);
  const { record, client } = await session.agent();
  const done = await client.pairing.confirm({ ticket, profile: await profileOf(session, record.name, options) });
  await session.output.result(done, `paired with ${done.initiatorAgentDid}`);
  if (!done.notified)
    session.output.remark("the other side is not notified yet; that is retried, and the trust stands");
}

async function status(session: Session, given: string): Promise<void> {
  const { client } = await session.agent();
  const found = await client.pairing.status(await ticketOf(session, given));
  await session.output.result({ status: found }, found);
}

async function remove(session: Session, did: string, yes: boolean): Promise<void> {
  const { record, client } = await session.agent();
  await mustConfirm(session, yes, `End the trust of ${record.name} with ${did}?`);
  const removed = await client.pairing.remove(did);
  await session.output.result(
    { peerAgentDid: did, removed },
    removed ? "the trust has ended" : "there was no trust to end",
  );
}

async function peers(session: Session): Promise<void> {
  const { client } = await session.agent();
  const found = await client.pairing.peers();
  const rows = found.map(({ agentDid, agentName, since }) => [agentDid, agentName, timeText(since)]);
  await session.output.result(
    { peers: found },
    found.length === 0 ? "no peers yet: sallyport pair start" : table(["AGENT", "CALLS ITSELF", "SINCE"], rows),
  );
}

async function profileOf(session: Session, agentName: string, options: ProfileOptions): Promise<PairProfile> {
  const humanName = options.humanName ?? (await session.home.settings.get())?.humanName;
  if (humanName === undefined)
    throw usage("say who you are: --human-name NAME, or once for all with `sallyport init --human-name NAME`");
  return { agentName, humanName };
}

async function ticketOf(session: Session, given: string): Promise<string> {
  const ticket = (given === "-" ? await readInput(session, "-") : given).trim();
  if (ticket === "") throw usage("there is no ticket in that");
  return ticket;
}
