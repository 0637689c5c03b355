/** A checkout of Sallyport on this machine: its settings, read as the program itself reads them. */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseEnv } from "node:util";
import { parseConfig } from "../../config.ts";
import { hasCode } from "../storage/private-file.ts";
import { decodeUtf8 } from "../storage/utf8.ts";

/** A setting that cannot be used, and the file to correct it in. */
export type BadSetting = { readonly setting: string; readonly problem: string; readonly file: string };

/** A checkout, and which of its settings the program would refuse. */
export type Checkout = { readonly folder: string; readonly badSettings: readonly BadSetting[] };

const SECRETS = new Set(["OPERATOR_TOKEN", "OPERATOR_TOKEN_NEXT", "REGISTRY_SIGNING_SECRET"]);

/** Whether a setting is a secret: a deployed proxy has it from elsewhere. */
export const isSecret = (setting: string): boolean => SECRETS.has(setting);

/**
 * @param startFolder where to begin to look; its parents are looked at too
 * @returns the checkout with every setting that the program would refuse, or null where there is none
 * @throws Error when `wrangler.toml` is none
 */
export async function readCheckout(startFolder: string): Promise<Checkout | null> {
  const folder = await checkoutAbove(startFolder);
  if (folder === null) return null;
  const settingsFile = join(folder, "wrangler.toml");
  const secretsFile = join(folder, ".dev.vars");
  const { parse } = await import("smol-toml");
  const { vars = {} } = parse((await textOf(settingsFile)) ?? "");
  const settings = vars as Record<string, unknown>;
  const secrets = parseEnv((await textOf(secretsFile)) ?? "");
  const parsed = parseConfig({ ...settings, ...secrets });
  const fileOf = (setting: string): string =>
    Object.hasOwn(secrets, setting) || isSecret(setting) ? secretsFile : settingsFile;
  return {
    folder,
    badSettings: parsed.ok ? [] : parsed.error.map((bad) => ({ ...bad, file: fileOf(bad.setting) })),
  };
}

/** @returns the checkout of Sallyport that a folder is in, or null */
export async function checkoutAbove(folder: string): Promise<string | null> {
  const manifest = await textOf(join(folder, "package.json"));
  if (
    manifest !== null &&
    /"name":\s*"sallyport"/.test(manifest) &&
    (await textOf(join(folder, "wrangler.toml"))) !== null
  )
    return folder;
  const parent = dirname(folder);
  return parent === folder ? null : checkoutAbove(parent);
}

async function textOf(file: string): Promise<string | null> {
  try {
    const text = decodeUtf8(await readFile(file));
    if (text === null) throw new Error(`${file} is no UTF-8`);
    return text;
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "EACCES") || hasCode(error, "ENOTDIR")) return null;
    throw error;
  }
}
