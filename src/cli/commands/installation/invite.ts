/** `sallyport invite …`: links by which others get an agent here. */
import type { ListedInvite } from "../../../client/index.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm, wholeNumber } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import { table, timeText } from "../../terminal/output.ts";

type CreateOptions = { name?: string; owner?: string; tenant?: string; uses?: number; ttlSeconds?: number };

/** Adds `invite create|list|revoke`. */
export const inviteFamily: Family = (program, run) => {
  const invites = program.command("invite").description("links by which others get an agent here (operator)");

  invites
    .command("create")
    .description("make an invite; its link is shown this once")
    .option("--name <note>", "who it is for, as `invite list` will say; at most 200 characters")
    .option("--owner <did>", "DID of the human who will own who comes by it; a new one otherwise")
    .option("--tenant <id>", "tenant they will belong to; the owner's own otherwise")
    .option("--uses <n>", "how many agents may come by it (1)", wholeNumber("--uses", 1, 100))
    .option("--ttl-seconds <n>", "how long it may be used (604800)", wholeNumber("--ttl-seconds", 60, 7_776_000))
    .action((options: CreateOptions) => run((session) => create(session, options)));

  invites
    .command("list")
    .description("every invite, without its secret, and who came by it")
    .action(() => run(list));

  invites
    .command("revoke")
    .description("end an invite; who has come by it stays")
    .argument("<id>", "as `invite list` shows it")
    .option("--yes", "do not ask", false)
    .action((id: string, { yes }: { yes: boolean }) => run((session) => revoke(session, id, yes)));
};

async function create(session: Session, options: CreateOptions): Promise<void> {
  const { name: note, owner: ownerDid, tenant: tenantId, uses, ttlSeconds } = options;
  const { invites } = await session.operator();
  const made = await invites.create({ ownerDid, tenantId, uses, ttlSeconds, note });
  await session.output.result(made, made.link);
  const agents = made.uses === 1 ? "one agent" : `${made.uses} agents`;
  session.output.remark([
    `for ${agents}, until ${timeText(made.expiresAtMs)}; whoever has the link may use it, and it is shown this once`,
    `the newcomer runs: sallyport join '${made.link}'`,
  ]);
}

async function list(session: Session): Promise<void> {
  const client = await session.operator();
  const invites: ListedInvite[] = [];
  let cursor: string | null = null;
  do {
    const page = await client.invites.list({ cursor: cursor ?? undefined });
    invites.push(...page.invites);
    cursor = page.nextCursor;
  } while (cursor !== null);
  const rows = invites.map((each) => [
    each.inviteId,
    each.note ?? "",
    `${each.usesLeft} of ${each.uses}`,
    each.revokedAtMs === undefined ? timeText(each.expiresAtMs) : `revoked ${timeText(each.revokedAtMs)}`,
    each.createdBy,
    each.agents.join(" "),
  ]);
  const words =
    invites.length === 0
      ? "no invites yet: sallyport invite create --name NAME"
      : table(["ID", "FOR", "LEFT", "UNTIL", "MADE BY", "CAME BY IT"], rows);
  await session.output.result({ invites }, words);
}

async function revoke(session: Session, inviteId: string, yes: boolean): Promise<void> {
  const { invites } = await session.operator();
  await mustConfirm(session, yes, `End the invite ${inviteId}?`);
  await session.output.result(await invites.revoke(inviteId), `nobody comes by ${inviteId} any more`);
}
