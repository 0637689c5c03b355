/** Settings of a machine that serves by itself: the environment over `wrangler.toml`, and secrets that stay on its disk. */
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { parseConfig, type SettingProblem } from "../../src/config.ts";
import { isReservedName } from "../../src/wire/host-names.ts";
import { err, ok, type Result } from "../../src/wire/result.ts";

/** Made where they are missing; the others are given or not there. */
const MADE = ["OPERATOR_TOKEN", "REGISTRY_SIGNING_SECRET"];
const SECRETS_FILE = "secrets.env";

/** What to serve with, and the file of secrets that was made on the way, if one was. */
export type ServeSettings = { readonly settings: Record<string, string>; readonly madeFile: string | null };

/**
 * @param given the environment of this process
 * @param project the settings of `wrangler.toml`
 * @param stateDir where secrets are kept that the environment does not give
 * @returns every problem found, as the Worker itself would find it
 */
export function serveSettings(
  given: NodeJS.ProcessEnv,
  project: Readonly<Record<string, unknown>>,
  stateDir: string,
): Result<ServeSettings, SettingProblem[]> {
  const named = [...settingNames()].flatMap((name) => {
    const value = given[name];
    return value === undefined || value === "" ? [] : [[name, value] as const];
  });
  const chosen: Record<string, string> = Object.fromEntries(named);
  const missing = MADE.filter((name) => chosen[name] === undefined);
  const kept = missing.length === 0 ? { secrets: {}, madeFile: null } : keptSecrets(join(stateDir, SECRETS_FILE));
  const settings = { ...kept.secrets, ...chosen };
  const parsed = parseConfig({ ...project, ...settings });
  if (!parsed.ok) return parsed;
  const { registryUrl, registryAuthority } = parsed.value;
  if (registryUrl === "embedded" && isReservedName(registryAuthority)) {
    const problem = `${registryAuthority} can be nobody's own: give an https URL with a host name that is yours`;
    return err([{ setting: "REGISTRY_ISSUER", problem }]);
  }
  return ok({ settings, madeFile: kept.madeFile });
}

/** The names that the program reads, by what it asks for. */
function settingNames(): Set<string> {
  const names = new Set<string>();
  parseConfig(
    new Proxy<Record<string, unknown>>(
      {},
      {
        get(_target, name) {
          if (typeof name === "string") names.add(name);
          return undefined;
        },
      },
    ),
  );
  return names;
}

function keptSecrets(file: string): { secrets: Record<string, string>; madeFile: string | null } {
  try {
    return { secrets: parseEnv(readFileSync(file, "utf8")) as Record<string, string>, madeFile: null };
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  }
  const secrets = Object.fromEntries(MADE.map((name) => [name, randomBytes(32).toString("base64url")]));
  const lines = Object.entries(secrets).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(
    file,
    `# Made on the first start. The registry's keys are derived from these: keep a copy.\n${lines.join("")}`,
    {
      mode: 0o600,
      flag: "wx",
    },
  );
  return { secrets, madeFile: file };
}
