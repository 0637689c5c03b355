/** `sallyport init`: where the Sallyport is, who the user is, and the operator token where there is one. */
import { createInstallationClient } from "../../../client/index.ts";
import { isSameOrigin, mustBeHostOf, parseAddress } from "../../session/address.ts";
import type { Family } from "../../session/command.ts";
import { askSecret, askText, operatorTokenIn, readInput } from "../../session/input.ts";
import { usage } from "../../terminal/errors.ts";
import type { Session } from "../../session/session.ts";

const DEFAULT_URL = "http://127.0.0.1:8787";

type InitOptions = { humanName?: string; operatorTokenFile?: string; movedFrom?: string; check: boolean };

/** Adds `init`. */
export const initFamily: Family = (program, run) => {
  program
    .command("init")
    .description("set up this machine: the address, your name, and the operator token where you have one")
    .option("--human-name <name>", "how you introduce yourself when pairing")
    .option(
      "--operator-token-file <file>",
      "file with the operator token, or with OPERATOR_TOKEN=… in it; - for standard input",
    )
    .option("--moved-from <url>", "the installation was there before: keep using what was given for that address")
    .option("--no-check", "do not ask the server whether it is there")
    .action((options: InitOptions) => run((session) => init(session, options)));
};

async function init(session: Session, options: InitOptions): Promise<void> {
  const { home, output, interactive } = session;
  const before = await home.settings.get();
  const baseUrl = await addressGiven(session, before?.baseUrl);
  const movedFrom = options.movedFrom === undefined ? null : new URL(parseAddress(options.movedFrom)).origin;
  const humanName =
    options.humanName ??
    before?.humanName ??
    (interactive ? await askText("Your name, for those you pair with?", "") : undefined);
  const token = await operatorToken(session, options);

  // The server is asked before anything is written: a typing error in the address is found here.
  if (options.check) {
    const installation = createInstallationClient(session.connection(baseUrl));
    await installation.health();
    mustBeHostOf(baseUrl, (await installation.serverTime()).authorities);
  }
  await home.bindOperatorToken();
  await home.settings.change((stored) => ({
    ...stored,
    baseUrl,
    ...(humanName === undefined || humanName === "" ? {} : { humanName }),
  }));
  if (movedFrom !== null) await home.moveTo(movedFrom, baseUrl);
  if (token !== null) await home.writeOperatorToken(token, baseUrl);

  const held = await home.operatorToken();
  const hasOperatorToken = held !== null && (held.baseUrl === null || isSameOrigin(held.baseUrl, baseUrl));
  await output.result({ home: home.path, baseUrl, humanName: humanName ?? null, operatorToken: hasOperatorToken }, [
    `set up ${baseUrl} in ${home.path}`,
    hasOperatorToken
      ? "next: sallyport agent register NAME"
      : "there is no operator token for it here: ask the operator for an agent",
  ]);
}

async function addressGiven({ givenUrl, interactive }: Session, before: string | undefined): Promise<string> {
  const ask = () => (interactive ? askText("Where is the Sallyport?", before ?? DEFAULT_URL) : before);
  const address = givenUrl ?? (await ask());
  if (address === undefined) throw usage("give the address: sallyport init --url https://…");
  return parseAddress(address);
}

async function operatorToken(session: Session, options: InitOptions): Promise<string | null> {
  if (options.operatorTokenFile !== undefined)
    return operatorTokenIn(await readInput(session, options.operatorTokenFile));
  if (!session.interactive || (await session.home.operatorToken()) !== null) return null;
  const typed = await askSecret("The operator token, if you run it (empty: none)");
  return typed === "" ? null : operatorTokenIn(typed);
}
