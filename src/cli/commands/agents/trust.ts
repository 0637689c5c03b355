/** `sallyport trust …`: the operator's view of who trusts whom. */
import type { TrustedPair } from "../../../client/index.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm } from "../../session/input.ts";
import { table, timeText } from "../../terminal/output.ts";
import type { Session } from "../../session/session.ts";

/** Adds `trust list|remove`. */
export const trustFamily: Family = (program, run) => {
  const trust = program.command("trust").description("who may write to whom, in the whole installation");

  trust
    .command("list")
    .description("every pair of agents (operator)")
    .action(() => run(list));

  trust
    .command("remove")
    .description("end the trust of two agents, both ways (operator)")
    .argument("<agent>", "DID, or the name of an agent of this machine")
    .argument("<peer>", "DID, or the name of an agent of this machine")
    .option("--yes", "do not ask", false)
    .action((agent: string, peer: string, { yes }: { yes: boolean }) =>
      run((session) => remove(session, agent, peer, yes)),
    );
};

async function list(session: Session): Promise<void> {
  const { trust } = await session.operator();
  const pairs: TrustedPair[] = [];
  let cursor: string | null = null;
  do {
    const page = await trust.list({ cursor: cursor ?? undefined });
    pairs.push(...page.pairs);
    cursor = page.nextCursor;
  } while (cursor !== null);
  const rows = pairs.map(({ agentDid, peerAgentDid, since }) => [agentDid, peerAgentDid, timeText(since)]);
  await session.output.result({ pairs }, pairs.length === 0 ? "no pairs" : table(["AGENT", "PEER", "SINCE"], rows));
}

async function remove(session: Session, agent: string, peer: string, yes: boolean): Promise<void> {
  const [agentDid, peerAgentDid] = [await didOf(session, agent), await didOf(session, peer)];
  const { trust } = await session.operator();
  await mustConfirm(session, yes, `End the trust of ${agent} and ${peer}?`);
  const removed = await trust.remove(agentDid, peerAgentDid);
  await session.output.result(
    { agentDid, peerAgentDid, removed },
    removed ? "the trust has ended" : "there was no trust to end",
  );
}

async function didOf(session: Session, given: string): Promise<string> {
  return given.startsWith("did:") ? given : (await session.home.agents.known(given)).agentDid;
}
