/** `sallyport join`: an agent of one's own at someone else's Sallyport, by the link that they sent. */
import { userInfo } from "node:os";
import { createInstallationClient, enrollAgent, importKeys } from "../../../client/index.ts";
import { parseUrl } from "../../../wire/url.ts";
import { mustBeFree, storeNewAgent } from "../../agents/credential.ts";
import { isSameOrigin, mustBeHostOf, parseAddress } from "../../session/address.ts";
import type { Family } from "../../session/command.ts";
import { askSecret, askText, readInput } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import { usage } from "../../terminal/errors.ts";

type JoinOptions = { name?: string; framework: string; description?: string; humanName?: string };

/** Adds `join`. */
export const joinFamily: Family = (program, run) => {
  program
    .command("join")
    .description("get an agent at someone else's Sallyport, by the link that they sent; the key is made here and stays")
    .argument(
      "[link]",
      "https://…/join#spi_…, or the invite alone with --url; - for standard input, which keeps it out of the list of processes",
    )
    .option("--name <name>", "name of the agent: 1 to 64 of A-Z a-z 0-9 . _ - and space (your login name)")
    .option("--framework <name>", "what the agent is built with", "sallyport")
    .option("--description <text>", "at most 280 characters")
    .option("--human-name <name>", "how you introduce yourself when pairing")
    .action((link: string | undefined, options: JoinOptions) => run((session) => join(session, link, options)));
};

async function join(session: Session, given: string | undefined, options: JoinOptions): Promise<void> {
  const { home, output } = session;
  const { baseUrl, invite } = await inviteIn(session, await linkGiven(session, given));
  const { framework, description } = options;
  const name = options.name ?? (await nameOf(session));
  await mustBeFree(home, name);

  // The server is asked before the invite goes to it: a link that was copied by halves is found here.
  const connection = session.connection(baseUrl);
  const installation = createInstallationClient(connection);
  await installation.health();
  mustBeHostOf(baseUrl, (await installation.serverTime()).authorities);

  let tenantId: string | null = null;
  const record = await storeNewAgent(home, name, baseUrl, async (_publicKey, jwk) => {
    const keys = await importKeys(jwk);
    const enrolled = await enrollAgent({ ...connection, keys, invite }, { name, framework, description });
    tenantId = enrolled.tenantId ?? null;
    return enrolled;
  });
  const isFirst = (await home.agents.names()).length === 1;
  const before = await home.settings.get();
  const humanName = options.humanName ?? before?.humanName ?? (await humanNameOf(session));
  // What was set up here for another Sallyport stays: an agent's file says where the agent is.
  const { baseUrl: stored = baseUrl } = await home.settings.change((held) => ({
    ...held,
    baseUrl: held?.baseUrl ?? baseUrl,
    ...(humanName === "" ? {} : { humanName }),
    ...(isFirst ? { defaultAgent: name } : {}),
  }));

  // Token, proof and the whole chain behind them, before anybody relies on it.
  await (await session.named(name)).client.pairing.peers();
  const { agentDid, ownerDid } = record;
  const file = home.agents.path(name);
  const as = isFirst ? "" : ` --agent '${name}'`;
  await output.result({ name, agentDid, ownerDid, tenantId, baseUrl, file }, [
    `${name} has joined ${baseUrl}, and is accepted there`,
    `  agent  ${agentDid}`,
    `  owner  ${ownerDid}`,
    `  file   ${file} (secret: it holds the key)`,
    ...(isSameOrigin(stored, baseUrl) ? [] : [`  this machine's own address stays ${stored}`]),
    `next: sallyport pair start${as}${humanName === "" ? " --human-name YOU" : ""}, and send what it prints to whoever you want to talk with`,
    `then: sallyport listen${as}, or sallyport connect${as} --forward-to URL for a program of yours`,
  ]);
}

async function linkGiven(session: Session, given: string | undefined): Promise<string> {
  if (given !== undefined && given !== "-") return given.trim();
  if (given === undefined && session.interactive) return (await askSecret("The link that you were sent")).trim();
  return (await readInput(session, "-")).trim();
}

/** @returns where the invite leads, and the invite. @throws CliError `USAGE` */
async function inviteIn(session: Session, text: string): Promise<{ baseUrl: string; invite: string }> {
  const isInvite = /^spi_[\w-]+$/;
  if (isInvite.test(text)) return { baseUrl: await session.baseUrl(), invite: text };
  const url = parseUrl(text);
  const invite = url?.hash.slice(1) ?? "";
  // Said without the text: it may hold the secret.
  if (url === null || !url.pathname.endsWith("/join") || !isInvite.test(invite))
    throw usage("that is no invite: the whole link is needed, https://…/join#spi_…, with everything behind the #");
  url.hash = "";
  url.pathname = url.pathname.slice(0, -"/join".length);
  const baseUrl = parseAddress(url.href);
  if (session.givenUrl !== undefined && !isSameOrigin(session.givenUrl, baseUrl))
    throw usage(`the link leads to ${baseUrl}, and not to ${session.givenUrl}`);
  return { baseUrl, invite };
}

/** The login name, as far as an agent may have it. */
async function nameOf(session: Session): Promise<string> {
  const login = loginName()
    .replaceAll(/[^A-Za-z0-9._ -]/g, "-")
    .replace(/^[.]+/, "")
    .slice(0, 64);
  const name = login === "" ? "agent" : login;
  return session.interactive ? askText("A name for your agent?", name) : name;
}

const humanNameOf = async ({ interactive }: Session): Promise<string> =>
  interactive ? askText("Your name, for those you pair with?", "") : "";

/** @returns nothing for a user whom the system has no name for, as in a container */
function loginName(): string {
  try {
    return userInfo().username;
  } catch {
    return "";
  }
}
