/**
 * Stands in for wrangler in a checkout of the test's own: the commands that a deployment uses, as the real one prints them,
 * over an account that is a file. Can fail at any of its commands, before or after it has taken effect.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** What is at Cloudflare. */
export type Account = {
  loggedIn: boolean;
  accounts: { id: string; name: string }[];
  databases: string[];
  migrations: number;
  worker: { secrets: Record<string, string>; uploads: number; updateMode: string | null } | null;
  /** Where the Worker answers. */
  url: string;
  /** Commands in the order in which they were run, without what they were given. */
  ran: string[];
  /** The command that fails, and whether it does so before it has had its effect; each once. */
  fails: { command: string; after: boolean }[];
};

const PROGRAM = String.raw`
import { readFileSync, writeFileSync, appendFileSync } from "node:fs";
const file = new URL("../../../account.json", import.meta.url);
const account = JSON.parse(readFileSync(file, "utf8"));
const args = process.argv.slice(2);
const words = { whoami: 1, deploy: 1, secret: 2, d1: args[1] === "migrations" ? 3 : 2 }[args[0]] ?? 9;
const command = args.slice(0, words).join(" ");
const save = () => writeFileSync(file, JSON.stringify(account));
account.ran.push(command);
save();
const failure = account.fails.find((one) => one.command === command);
const fail = (text, status = 1) => { console.error(text); process.exit(status); };
if (failure !== undefined) account.fails.splice(account.fails.indexOf(failure), 1);
save();
if (failure !== undefined && !failure.after) fail("X [ERROR] fetch failed");
const option = (name) => args[args.indexOf(name) + 1];
switch (command) {
  case "whoami":
    if (!account.loggedIn) fail(JSON.stringify({ loggedIn: false }));
    console.log(JSON.stringify({ loggedIn: true, accounts: account.accounts }));
    break;
  case "d1 list":
    console.log(JSON.stringify(account.databases.map((name) => ({ uuid: "0", name }))));
    break;
  case "d1 create":
    if (account.databases.includes(args[2])) fail("A database with that name already exists [code: 7502]");
    account.databases.push(args[2]);
    break;
  case "d1 migrations apply":
    if (!account.databases.includes("sallyport") || !args.includes("--remote")) fail("Couldn't find a D1 DB");
    account.migrations += 1;
    break;
  case "secret list":
    if (account.worker === null) fail("This Worker does not exist on your account. [code: 10007]");
    console.log(JSON.stringify(Object.keys(account.worker.secrets).map((name) => ({ name, type: "secret_text" }))));
    break;
  case "deploy": {
    const given = args.includes("--secrets-file") ? JSON.parse(readFileSync(option("--secrets-file"), "utf8")) : {};
    const before = account.worker ?? { secrets: {}, uploads: 0, updateMode: null };
    account.worker = {
      secrets: { ...before.secrets, ...given },
      uploads: before.uploads + 1,
      updateMode: args.includes("--durable-objects-code-update-mode") ? option("--durable-objects-code-update-mode") : null,
    };
    appendFileSync(process.env.WRANGLER_OUTPUT_FILE_PATH, JSON.stringify({ type: "wrangler-session", version: 1 }) + "\n" +
      JSON.stringify({ type: "deploy", version: 1, targets: [account.url] }) + "\n");
    break;
  }
  default:
    fail("Unknown command: " + command);
}
save();
if (failure !== undefined) fail("X [ERROR] fetch failed");
`;

/** An account of Cloudflare's, and the checkout that goes there. */
export type StandIn = {
  account(): Promise<Account>;
  change(change: (account: Account) => void): Promise<void>;
  /** The `wrangler.toml` of the checkout. */
  settings(): Promise<string>;
};

/** @param folder becomes a checkout @param url where the Worker answers once it is there */
export async function standInFor(folder: string, url: string, issuer: string): Promise<StandIn> {
  const program = join(folder, "node_modules/wrangler/wrangler-dist");
  await mkdir(program, { recursive: true });
  await writeFile(join(program, "package.json"), `{ "type": "module" }`);
  await writeFile(join(program, "cli.js"), PROGRAM);
  await writeFile(join(folder, "package.json"), `{ "name": "sallyport" }`);
  await writeFile(
    join(folder, "wrangler.toml"),
    `name = "sallyport"
main = "worker.ts"
compatibility_date = "2026-10-01"
[vars]
# Stays as it is.
REGISTRY_URL = "embedded"
REGISTRY_ISSUER = "${issuer}"
[[d1_databases]]
binding = "DB"
database_name = "sallyport"
`,
  );
  await writeFile(join(folder, "worker.ts"), "export default {};\n");
  const file = join(folder, "account.json");
  const read = async (): Promise<Account> => JSON.parse(await readFile(file, "utf8")) as Account;
  const initial: Account = {
    loggedIn: true,
    accounts: [{ id: "a1", name: "Alice" }],
    databases: [],
    migrations: 0,
    worker: null,
    url,
    ran: [],
    fails: [],
  };
  await writeFile(file, JSON.stringify(initial));
  return {
    account: read,
    async change(change) {
      const account = await read();
      change(account);
      await writeFile(file, JSON.stringify(account));
    },
    settings: () => readFile(join(folder, "wrangler.toml"), "utf8"),
  };
}
