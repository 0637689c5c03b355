/** `sallyport agent …`: the agents of this machine, and of the installation. */
import { aitLifetime, type ListedAgent } from "../../../client/index.ts";
import { mustBeFree, storeNewAgent, storeRekeyed } from "../../agents/credential.ts";
import { addressFor } from "../../session/address.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm, wholeNumber } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import type { AgentRecord } from "../../storage/agent-files.ts";
import { usage } from "../../terminal/errors.ts";
import { table, timeText } from "../../terminal/output.ts";

type RegisterOptions = {
  framework: string;
  owner?: string;
  tenant?: string;
  description?: string;
  ttlSeconds?: number;
  default: boolean;
};

/** Adds `agent register|list|use|reissue|rekey|revoke`. */
export const agentFamily: Family = (program, run) => {
  const agent = program.command("agent").description("register, renew and end agents");

  agent
    .command("register")
    .description("make a key pair here and register a new agent with it (operator)")
    .argument("<name>", "1 to 64 of A-Z a-z 0-9 . _ - and space")
    .option("--framework <name>", "what the agent is built with", "sallyport")
    .option("--owner <did>", "DID of the human who owns it; a new one otherwise")
    .option("--tenant <id>", "tenant it belongs to; the owner's own otherwise")
    .option("--description <text>", "at most 280 characters")
    .option("--ttl-seconds <n>", "life of its identity token", wholeNumber("--ttl-seconds", 1, 1e10))
    .option("--default", "let it act when no agent is named", false)
    .action((name: string, options: RegisterOptions) => run((session) => register(session, name, options)));

  agent
    .command("list")
    .description("the agents of this machine, or of the whole installation")
    .option("--all", "every agent of the installation (operator)", false)
    .action((options: { all: boolean }) => run((session) => (options.all ? listAll(session) : listHere(session))));

  agent
    .command("use")
    .description("let an agent act when none is named")
    .argument("<name>")
    .action((name: string) => run((session) => use(session, name)));

  agent
    .command("reissue")
    .description("get a new identity token before the old one expires")
    .action(() => run(reissue));

  agent
    .command("rekey")
    .description("give an agent a new key: after a lost key, or an expired identity token (operator)")
    .argument("[name]", "an agent of this machine; with --did any name that is free here")
    .option("--did <did>", "DID of an agent that is not on this machine yet")
    .option("--yes", "do not ask", false)
    .action((name: string | undefined, options: { did?: string; yes: boolean }) =>
      run((session) => rekey(session, name, options)),
    );

  agent
    .command("revoke")
    .description("end an agent permanently, with everything it holds (operator)")
    .argument("<agent>", "name on this machine, or DID")
    .option("--reason <text>", "kept in the audit log and the revocation list")
    .option("--yes", "do not ask", false)
    .action((who: string, options: { reason?: string; yes: boolean }) =>
      run((session) => revoke(session, who, options)),
    );
};

async function register(session: Session, name: string, options: RegisterOptions): Promise<void> {
  const { home, output } = session;
  await mustBeFree(home, name);
  const operator = await session.operator();
  const { framework, owner, tenant, description, ttlSeconds } = options;
  let tenantId: string | null = null;
  const record = await storeNewAgent(home, name, await session.baseUrl(), async (publicKey) => {
    const whose = { ownerDid: owner, tenantId: tenant };
    const registered = await operator.registerAgent({ name, framework, publicKey, ...whose, description, ttlSeconds });
    tenantId = registered.tenantId ?? null;
    return registered;
  });
  const isFirst = (await home.agents.names()).length === 1;
  if (options.default || isFirst) await home.settings.change((stored) => ({ ...stored, defaultAgent: name }));
  const { agentDid, ownerDid } = record;
  const file = home.agents.path(name);
  await output.result({ name, agentDid, ownerDid, tenantId, file }, [
    `registered ${name}`,
    `  agent  ${agentDid}`,
    `  owner  ${ownerDid}`,
    `  file   ${file} (secret: it holds the key)`,
  ]);
}

async function listHere(session: Session): Promise<void> {
  const { home, output } = session;
  const defaultAgent = (await home.settings.get())?.defaultAgent ?? null;
  const records: AgentRecord[] = [];
  for (const name of await home.agents.names()) {
    const record = await home.agents.get(name);
    if (record !== null) records.push(record);
  }
  const agents = records.map(({ name, agentDid, ownerDid, baseUrl, ait, keys }) => ({
    name,
    agentDid,
    ownerDid,
    baseUrl,
    publicKey: keys.x,
    aitExpiresAtMs: aitLifetime(ait).expiresAtMs,
    isDefault: name === defaultAgent,
  }));
  const rows = agents.map((each) => [
    each.isDefault ? "*" : "",
    each.name,
    each.agentDid,
    timeText(each.aitExpiresAtMs),
    each.baseUrl,
  ]);
  const words =
    agents.length === 0
      ? "no agents here yet: sallyport agent register NAME"
      : table(["", "NAME", "AGENT", "IDENTITY UNTIL", "AT"], rows);
  await output.result({ agents }, words);
}

async function listAll(session: Session): Promise<void> {
  const operator = await session.operator();
  const agents: ListedAgent[] = [];
  let cursor: string | undefined;
  do {
    const page = await operator.listAgents({ cursor });
    agents.push(...page.agents);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  const rows = agents.map(({ name, agentDid, status, framework, createdAtMs }) => [
    name,
    agentDid,
    status,
    framework,
    timeText(createdAtMs),
  ]);
  await session.output.result({ agents }, table(["NAME", "AGENT", "STATUS", "FRAMEWORK", "SINCE"], rows));
}

async function use(session: Session, name: string): Promise<void> {
  await session.home.agents.known(name);
  await session.home.settings.change((stored) => ({ ...stored, defaultAgent: name }));
  await session.output.result({ defaultAgent: name }, `${name} acts from now on`);
}

async function reissue(session: Session): Promise<void> {
  const { record, client } = await session.agent();
  await client.reissue();
  const { expiresAtMs } = aitLifetime(client.credential().ait);
  await session.output.result(
    { name: record.name, agentDid: record.agentDid, aitExpiresAtMs: expiresAtMs },
    `${record.name} has a new identity token, good until ${timeText(expiresAtMs)}`,
  );
}

async function rekey(
  session: Session,
  name: string | undefined,
  options: { did?: string; yes: boolean },
): Promise<void> {
  const { home, output } = session;
  const { did, yes } = options;
  const confirm = (fileName: string, agentDid: string): Promise<void> =>
    mustConfirm(session, yes, `Give ${fileName} (${agentDid}) a new key? Everything issued to it before is over.`);
  const operator = await session.operator();
  const baseUrl = await session.baseUrl();
  let record: AgentRecord;
  if (did === undefined) {
    const agent = await (name === undefined ? session.agentRecord() : home.agents.known(name));
    // An agent's credential comes from where the agent is.
    addressFor({ what: `the credential of ${agent.name}`, baseUrl: agent.baseUrl }, baseUrl);
    await confirm(agent.name, agent.agentDid);
    record = await storeRekeyed(home, agent, baseUrl, (key) => operator.rekeyAgent(agent.agentDid, key));
  } else {
    if (name === undefined) throw usage("give a name for the agent's file: sallyport agent rekey NAME --did DID");
    await mustBeFree(home, name);
    await confirm(name, did);
    record = await storeNewAgent(home, name, baseUrl, (key) => operator.rekeyAgent(did, key));
  }
  const { agentDid, ownerDid } = record;
  await output.result(
    { name: record.name, agentDid, ownerDid, file: home.agents.path(record.name) },
    `${record.name} has a new key; its DID and its peers stay`,
  );
}

async function revoke(session: Session, who: string, options: { reason?: string; yes: boolean }): Promise<void> {
  const agentDid = who.startsWith("did:") ? who : (await session.home.agents.known(who)).agentDid;
  const operator = await session.operator();
  await mustConfirm(session, options.yes, `End ${who} permanently?`);
  await operator.revokeAgent(agentDid, options.reason);
  await session.output.result(
    { agentDid, revoked: true },
    `${who} has been revoked: nothing under its name is accepted any more`,
  );
}
