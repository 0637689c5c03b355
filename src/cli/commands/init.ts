/** `sallyport init`: where the Sallyport is, who the user is, and the operator token where there is one. */
import { createInstallationClient } from "../../client/index.ts";
import type { Family } from "../session/command.ts";
import { askSecret, askText, operatorTokenIn, readInput, usage } from "../session/input.ts";
import type { Session } from "../session/session.ts";

const DEFAULT_URL = "http://127.0.0.1:8787";

type InitOptions = { humanName?: string; operatorTokenFile?: string; check: boolean };

export const initFamily: Family = (program, run) => {
  program
    .command("init")
    .description("set up this machine: the address, your name, and the operator token where you have one")
    .option("--human-name <name>", "how you introduce yourself when pairing")
    .option(
      "--operator-token-file <file>",
      "file with the operator token, or with OPERATOR_TOKEN=… in it; - for standard input",
    )
    .option("--no-check", "do not ask the server whether it is there")
    .action((options: InitOptions) => run((session) => init(session, options)));
};

async function init(session: Session, options: InitOptions): Promise<void> {
  const { home, output, givenUrl } = session;
  const before = await home.settings();
  const baseUrl = checkedUrl(
    givenUrl ??
      (session.interactive
        ? await askText("Where is the Sallyport?", before?.baseUrl ?? DEFAULT_URL)
        : before?.baseUrl),
  );
  const humanName =
    options.humanName ??
    before?.humanName ??
    (session.interactive ? await askText("Your name, for those you pair with?", "") : undefined);
  const token = await operatorToken(session, options);

  // The server is asked before anything is written: a typing error in the address is found here.
  if (options.check) await createInstallationClient({ baseUrl }).health();
  await home.writeSettings({
    ...before,
    baseUrl,
    ...(humanName === undefined || humanName === "" ? {} : { humanName }),
  });
  if (token !== null) await home.writeOperatorToken(token);

  const hasOperatorToken = (await home.operatorToken()) !== null;
  output.result(
    { home: home.path, baseUrl, humanName: humanName ?? null, operatorToken: hasOperatorToken },
    [
      `set up ${baseUrl} in ${home.path}`,
      hasOperatorToken
        ? "next: sallyport agent register NAME"
        : "there is no operator token here: ask the operator for an agent",
    ].join("\n"),
  );
}

async function operatorToken(session: Session, options: InitOptions): Promise<string | null> {
  if (options.operatorTokenFile !== undefined)
    return operatorTokenIn(await readInput(session, options.operatorTokenFile));
  if (!session.interactive || (await session.home.operatorToken()) !== null) return null;
  const typed = await askSecret("The operator token, if you run it (empty: none)");
  return typed === "" ? null : operatorTokenIn(typed);
}

function checkedUrl(text: string | undefined): string {
  if (text === undefined) throw usage("give the address: sallyport init --url https://…");
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:") || url.username !== "") {
    throw usage(`${text} is no http(s) address`);
  }
  return url.href.replace(/\/$/, "");
}
