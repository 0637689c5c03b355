/** The settings of a checkout that decide about its deployment, in its `wrangler.toml`. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod/mini";
import { issuerHost } from "../../wire/ait.ts";
import { isReservedName } from "../../wire/host-names.ts";
import { CliError, EXIT, usage } from "../terminal/errors.ts";

/** What of `wrangler.toml` a deployment needs. */
export type Project = {
  readonly folder: string;
  /** Of the Worker. */
  readonly name: string;
  readonly accountId: string | null;
  readonly databaseName: string;
  readonly registryIsEmbedded: boolean;
  readonly issuer: string;
};

/** What is read of the file; wrangler itself judges the rest. */
const settingsOf = z.partial(
  z.object({
    name: z.string(),
    account_id: z.string(),
    d1_databases: z.array(z.object({ binding: z.string(), database_name: z.optional(z.string()) })),
    vars: z.record(z.string(), z.unknown()),
  }),
);

/** @throws CliError `BAD_PROJECT` where `wrangler.toml` is not one that can be deployed */
export async function readProject(folder: string): Promise<Project> {
  const parsed = settingsOf.safeParse(await parseToml(join(folder, "wrangler.toml")));
  const config = parsed.success ? parsed.data : {};
  const databaseName = config.d1_databases?.find(({ binding }) => binding === "DB")?.database_name;
  if (config.name === undefined || databaseName === undefined) {
    throw badProject(`${join(folder, "wrangler.toml")} names no Worker, or no database for DB`);
  }
  const { REGISTRY_ISSUER: issuer, REGISTRY_URL: registry } = config.vars ?? {};
  return {
    folder,
    name: config.name,
    accountId: config.account_id ?? null,
    databaseName,
    registryIsEmbedded: registry === undefined || registry === "" || registry === "embedded",
    issuer: typeof issuer === "string" ? issuer : "",
  };
}

/** @throws CliError `BAD_PROJECT` with the line at fault */
async function parseToml(file: string): Promise<unknown> {
  const { parse, TomlError } = await import("smol-toml");
  try {
    return parse(await readFile(file, "utf8"));
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw badProject(`${file} is no TOML, at line ${error.line}`, error);
  }
}

const badProject = (message: string, cause?: unknown): CliError =>
  new CliError("BAD_PROJECT", message, {
    exitCode: EXIT.setup,
    advice: "Restore it from the repository, and change its settings alone.",
    cause,
  });

/**
 * DIDs are for life, and their authority is the host of the issuer: a name that is nobody's would be in all of them.
 *
 * @returns why an issuer cannot be deployed, or null
 */
export function issuerProblem(issuer: string): string | null {
  const host = issuerHost(issuer);
  if (host === null) return "must be an https URL whose host is a DNS name of two labels or more";
  if (isReservedName(host)) return `${host} can be nobody's own (RFC 2606)`;
  return issuer.startsWith("https:") ? null : "must be an https URL";
}

const ISSUER_LINE = /^REGISTRY_ISSUER[ \t]*=.*$/m;

/** Writes the issuer into `wrangler.toml`, in its own line. @throws CliError where the file has no such line */
export async function writeIssuer(folder: string, issuer: string): Promise<void> {
  const problem = issuerProblem(issuer);
  if (problem !== null) throw usage(`REGISTRY_ISSUER ${problem}`);
  const file = join(folder, "wrangler.toml");
  const text = await readFile(file, "utf8");
  if (!ISSUER_LINE.test(text)) throw usage(`${file} has no line REGISTRY_ISSUER = …: add it under [vars]`);
  await writeFile(
    file,
    text.replace(ISSUER_LINE, () => `REGISTRY_ISSUER = ${JSON.stringify(new URL(issuer).origin)}`),
  );
}
