/** A deployment, step by step: each looks first at what is there, so the whole may be repeated and goes on where it stopped. */
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as z from "zod/mini";
import { CliError, EXIT } from "../terminal/errors.ts";
import { issuerProblem, type Project } from "./project.ts";
import { type Wrangler, wranglerFailed } from "./wrangler.ts";

/** The secrets that a Worker cannot do without. */
export type SecretName = "OPERATOR_TOKEN" | "REGISTRY_SIGNING_SECRET";

/** What is there before anything is done. */
export type Found = {
  readonly account: { readonly id: string; readonly name: string };
  readonly hasDatabase: boolean;
  /** Names of the secrets that the Worker has; null while there is no Worker. */
  readonly secrets: readonly string[] | null;
};

/** One thing that a deployment does, or finds done. */
export type Step = { readonly name: string; readonly isDone: boolean; readonly words: string };

const whoami = z.looseObject({ accounts: z.array(z.looseObject({ id: z.string(), name: z.string() })) });
const databases = z.array(z.looseObject({ name: z.string() }));
const secretNames = z.array(z.looseObject({ name: z.string() }));
const deployed = z.looseObject({ type: z.literal("deploy"), targets: z.optional(z.array(z.string())) });

/** What Cloudflare answers where there is no Worker of that name. */
const NO_WORKER = "10007";

/**
 * Looks at what is there; changes nothing.
 *
 * @throws CliError `NOT_LOGGED_IN`, `SEVERAL_ACCOUNTS`, `WRANGLER`
 */
export async function findDeployment(
  wrangler: Wrangler,
  project: Project,
  environment: NodeJS.ProcessEnv,
): Promise<Found> {
  const account = accountOf(await accountsOf(wrangler), project.accountId ?? environment["CLOUDFLARE_ACCOUNT_ID"]);
  const listed = await wrangler.must(["d1", "list", "--json"]);
  const hasDatabase = jsonIn(databases, listed.stdout).some(({ name }) => name === project.databaseName);
  return { account, hasDatabase, secrets: await secretsOf(wrangler) };
}

async function accountsOf(wrangler: Wrangler): Promise<{ id: string; name: string }[]> {
  const asked = await wrangler.run(["whoami", "--json"]);
  if (asked.status !== 0) {
    throw new CliError("NOT_LOGGED_IN", "wrangler is not logged in at Cloudflare", {
      exitCode: EXIT.setup,
      advice: "Run `npx wrangler login` in the checkout, or set CLOUDFLARE_API_TOKEN.",
    });
  }
  return jsonIn(whoami, asked.stdout).accounts;
}

function accountOf(accounts: readonly { id: string; name: string }[], chosen: string | undefined) {
  const [first] = accounts;
  const account = chosen === undefined ? first : accounts.find(({ id }) => id === chosen);
  if (account !== undefined && (chosen !== undefined || accounts.length === 1)) return account;
  throw new CliError("SEVERAL_ACCOUNTS", "it is not clear which account of Cloudflare is meant", {
    exitCode: EXIT.setup,
    advice: `Set CLOUDFLARE_ACCOUNT_ID to one of: ${accounts.map(({ id, name }) => `${id} (${name})`).join(", ") || "none"}.`,
  });
}

async function secretsOf(wrangler: Wrangler): Promise<string[] | null> {
  const args = ["secret", "list", "--format", "json"];
  const asked = await wrangler.run(args);
  if (asked.status === 0) return jsonIn(secretNames, asked.stdout).map(({ name }) => name);
  // A failure that says something else is one: taken for no Worker, it would have its secrets replaced.
  if (`${asked.stderr}${asked.stdout}`.includes(NO_WORKER)) return null;
  throw wranglerFailed(args, asked);
}

/** Names of the secrets that this deployment has to set. */
export function missingSecrets(project: Project, { secrets }: Pick<Found, "secrets">): SecretName[] {
  const wanted: SecretName[] = ["OPERATOR_TOKEN"];
  if (project.registryIsEmbedded) wanted.push("REGISTRY_SIGNING_SECRET");
  return wanted.filter((name) => !(secrets ?? []).includes(name));
}

/** @returns what a deployment would do, in its order */
export function planOf(project: Project, found: Found): Step[] {
  const missing = missingSecrets(project, found);
  const problem = issuerProblem(project.issuer);
  return [
    { name: "account", isDone: true, words: `${found.account.name} (${found.account.id})` },
    {
      name: "issuer",
      isDone: problem === null,
      words: problem === null ? project.issuer : `REGISTRY_ISSUER ${problem}`,
    },
    {
      name: "database",
      isDone: found.hasDatabase,
      words: found.hasDatabase ? `${project.databaseName} is there` : `make ${project.databaseName}`,
    },
    {
      name: "secrets",
      isDone: missing.length === 0,
      words: missing.length === 0 ? "are set" : `make and set ${missing.join(" and ")}`,
    },
    // The version that still runs reads the newer schema; the new one does not read the older.
    { name: "migrations", isDone: false, words: "apply those that the database has not had" },
    {
      name: "worker",
      isDone: false,
      words: found.secrets === null ? `upload ${project.name} for the first time` : `upload ${project.name}`,
    },
    { name: "ready", isDone: false, words: "wait until /ready says so" },
  ];
}

/** @returns a fresh secret, 32 random bytes */
export function newDeploymentSecret(): string {
  return randomBytes(32).toString("base64url");
}

/** Makes the database where there is none, and brings its schema up to date. */
export async function migrate(wrangler: Wrangler, project: Project, found: Found): Promise<void> {
  if (!found.hasDatabase) await wrangler.must(["d1", "create", project.databaseName]);
  await wrangler.must(["d1", "migrations", "apply", "DB", "--remote"]);
}

/**
 * Uploads the Worker, with the secrets that it has not had yet: they are there from its first request on.
 *
 * @param how.updateObjects `immediate` ends every relay socket at once; `deferred` lets sleeping ones be
 * @returns where it answers, https first; empty where wrangler does not say
 */
export async function upload(
  wrangler: Wrangler,
  secrets: Readonly<Record<string, string>>,
  how: { readonly updateObjects: "immediate" | "deferred" },
): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-deploy-"));
  try {
    const report = join(folder, "report.ndjson");
    const secretsFile = join(folder, "secrets.json");
    const hasSecrets = Object.keys(secrets).length > 0;
    if (hasSecrets) await writeFile(secretsFile, JSON.stringify(secrets), { mode: 0o600 });
    await wrangler.must(
      [
        "deploy",
        ...(how.updateObjects === "immediate" ? ["--durable-objects-code-update-mode", "immediate"] : []),
        ...(hasSecrets ? ["--secrets-file", secretsFile] : []),
      ],
      { environment: { WRANGLER_OUTPUT_FILE_PATH: report } },
    );
    return targetsIn(await readFile(report, "utf8"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function targetsIn(report: string): string[] {
  const entries = report.split("\n").filter((line) => line !== "");
  const targets = entries.flatMap((line) => {
    const parsed = deployed.safeParse(JSON.parse(line));
    return parsed.success ? (parsed.data.targets ?? []) : [];
  });
  return targets
    .map((target) => (/^https?:/.test(target) ? target : `https://${target}`))
    .filter((target) => URL.canParse(target) && !target.includes("*"))
    .map((target) => new URL(target).origin);
}

/** @throws CliError `WRANGLER` where the text is not what a command of wrangler is documented to print */
function jsonIn<T>(schema: z.ZodMiniType<T>, text: string): T {
  const start = text.search(/[[{]/);
  try {
    return schema.parse(JSON.parse(start < 0 ? text : text.slice(start)));
  } catch (error) {
    throw new CliError("WRANGLER", "wrangler answered with something else than expected", {
      exitCode: EXIT.unexpected,
      cause: error,
    });
  }
}
