/** `sallyport group …`: agents that may all send to one another. */
import { Option } from "commander";
import type { GroupMember, GroupRole, Groups } from "../../../client/index.ts";
import type { Family, Run } from "../../session/command.ts";
import { mustConfirm, readInput, wholeNumber } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import { usage } from "../../terminal/errors.ts";
import { table, timeText } from "../../terminal/output.ts";

type ByDevice = { device?: string };

const asDevice = (): Option => new Option("--device <name>", "act as a device of this machine that has `admin`");

/** Adds `group create|invite|join|list|show|remove|leave|rename|delete`. */
export const groupFamily: Family = (program, run) => {
  const group = program.command("group").description("groups of agents that may all send to one another");
  group
    .command("create")
    .description("make a group with this agent as its admin")
    .argument("<name>", "1 to 64 characters")
    .addOption(asDevice())
    .action((name: string, by: ByDevice) => run((session) => create(session, name, by)));

  group
    .command("invite")
    .description("make a token by which one agent may join")
    .argument("<group>", "id of the group")
    .addOption(new Option("--role <role>", "what the agent is to be").choices(["member", "admin"]).default("member"))
    .option(
      "--ttl-seconds <n>",
      "how long the token lives, 60 to 604800 (86400)",
      wholeNumber("--ttl-seconds", 60, 604_800),
    )
    .addOption(asDevice())
    .action((groupId: string, options: ByDevice & { role: GroupRole; ttlSeconds?: number }) =>
      run((session) => invite(session, groupId, options)),
    );

  group
    .command("join")
    .description("join a group by a token; it works once")
    .argument("<token>", "as an admin of the group gave it; - for standard input")
    .addOption(asDevice())
    .action((token: string, by: ByDevice) => run((session) => join(session, token, by)));

  group
    .command("list")
    .description("the groups that this agent is in")
    .addOption(asDevice())
    .action((by: ByDevice) => run((session) => list(session, by)));

  group
    .command("show")
    .description("who is in a group")
    .argument("<group>", "id of the group")
    .addOption(asDevice())
    .action((groupId: string, by: ByDevice) => run((session) => show(session, groupId, by)));

  group
    .command("rename")
    .description("give a group another name (admin)")
    .argument("<group>", "id of the group")
    .argument("<name>", "1 to 64 characters")
    .addOption(asDevice())
    .action((groupId: string, name: string, by: ByDevice) =>
      run(async (session) => {
        await (await groupsOf(session, by)).rename(groupId, name);
        await session.output.result({ groupId, name }, `renamed to ${name}`);
      }),
    );

  addEndings(group, run);
};

/** What ends a place in a group, or the group: asked for before it is done. */
function addEndings(group: Parameters<Family>[0], run: Run): void {
  group
    .command("remove")
    .description("remove a member, who is out at once (admin)")
    .argument("<group>", "id of the group")
    .argument("<agent>", "DID, or the name of an agent of this machine")
    .option("--yes", "do not ask", false)
    .addOption(asDevice())
    .action((groupId: string, agent: string, options: ByDevice & { yes: boolean }) =>
      run((session) => remove(session, groupId, agent, options)),
    );

  group
    .command("leave")
    .description("leave a group")
    .argument("<group>", "id of the group")
    .option("--yes", "do not ask", false)
    .addOption(asDevice())
    .action((groupId: string, { yes, ...by }: ByDevice & { yes: boolean }) =>
      run(async (session) => {
        const groups = await groupsOf(session, by);
        await mustConfirm(session, yes, `Leave ${groupId}?`);
        await groups.leave(groupId);
        await session.output.result({ groupId, left: true }, "left");
      }),
    );

  group
    .command("delete")
    .description("delete a group for all of its members (admin)")
    .argument("<group>", "id of the group")
    .option("--yes", "do not ask", false)
    .addOption(asDevice())
    .action((groupId: string, { yes, ...by }: ByDevice & { yes: boolean }) =>
      run(async (session) => {
        const groups = await groupsOf(session, by);
        await mustConfirm(session, yes, `Delete ${groupId} for all of its members?`);
        await groups.delete(groupId);
        await session.output.result({ groupId, deleted: true }, "deleted");
      }),
    );
}

async function create(session: Session, name: string, by: ByDevice): Promise<void> {
  const made = await (await groupsOf(session, by)).create(name);
  await session.output.result(made, [made.groupId, "", `Let others in: sallyport group invite ${made.groupId}`]);
}

async function invite(
  session: Session,
  groupId: string,
  { role, ttlSeconds, ...by }: ByDevice & { role: GroupRole; ttlSeconds?: number },
): Promise<void> {
  const made = await (await groupsOf(session, by)).invite({ groupId, role, ttlSeconds });
  await session.output.result(made, [
    made.token,
    "",
    `Give it to one agent by a way that you trust, until ${timeText(made.expiresAtMs)}:`,
    "  sallyport group join TOKEN",
  ]);
}

async function join(session: Session, given: string, by: ByDevice): Promise<void> {
  const token = (given === "-" ? await readInput(session, "-") : given).trim();
  if (token === "") throw usage("there is no token in that");
  const joined = await (await groupsOf(session, by)).join(token);
  await session.output.result(joined, [
    `joined ${joined.name}: ${joined.groupId}`,
    "",
    ...membersTable(joined.members),
  ]);
}

async function list(session: Session, by: ByDevice): Promise<void> {
  const groups = await (await groupsOf(session, by)).list();
  const rows = groups.map(({ groupId, name, role, members, since }) => [
    groupId,
    name,
    role,
    String(members),
    timeText(since),
  ]);
  await session.output.result(
    { groups },
    groups.length === 0
      ? "no groups yet: sallyport group create NAME"
      : table(["GROUP", "NAME", "ROLE", "MEMBERS", "SINCE"], rows),
  );
}

async function show(session: Session, groupId: string, by: ByDevice): Promise<void> {
  const found = await (await groupsOf(session, by)).get(groupId);
  await session.output.result(found, [`${found.name} (${found.role})`, "", ...membersTable(found.members)]);
}

async function remove(
  session: Session,
  groupId: string,
  agent: string,
  { yes, ...by }: ByDevice & { yes: boolean },
): Promise<void> {
  const agentDid = agent.startsWith("did:") ? agent : (await session.home.agents.known(agent)).agentDid;
  const groups = await groupsOf(session, by);
  await mustConfirm(session, yes, `Remove ${agent} from ${groupId}?`);
  const removed = await groups.remove(groupId, agentDid);
  await session.output.result({ groupId, agentDid, removed }, removed ? "removed" : "it was not in the group");
}

function membersTable(members: readonly GroupMember[]): string[] {
  const rows = members.map(({ agentDid, role, since }) => [agentDid, role, timeText(since)]);
  return table(["AGENT", "ROLE", "SINCE"], rows);
}

async function groupsOf(session: Session, { device }: ByDevice): Promise<Groups> {
  return (device === undefined ? await session.agent() : await session.device(device)).client.groups;
}
