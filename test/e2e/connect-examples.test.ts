/** The checks of docs/connect.md, as they are printed, against what the connector really sends. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { localSignature } from "../../src/connect/signature.ts";
import { root } from "../support/program/bundle.ts";

const run = promisify(execFile);
const BODY = '{"payload":"ä"}';
const KEY = new Uint8Array(32).fill(9);

/** The block of a language in the page. */
async function printed(language: string): Promise<string> {
  const page = await readFile(join(root, "docs/connect.md"), "utf8");
  const block = new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``).exec(page)?.[1];
  if (block === undefined) throw new Error(`the page has no ${language}`);
  return block;
}

async function hasPython(): Promise<boolean> {
  try {
    await run("python3", ["-c", "import sys; assert sys.version_info >= (3, 9)"]);
    return true;
  } catch (error) {
    if (process.env["CI"] !== undefined) throw error;
    return false;
  }
}

type Case = {
  what: string;
  isGenuine: boolean;
  change: (headers: Record<string, string>) => Record<string, string>;
  body?: string;
};

const CASES: Case[] = [
  { what: "what the connector sends", isGenuine: true, change: (headers) => headers },
  { what: "another body", isGenuine: false, change: (headers) => headers, body: '{"payload":"b"}' },
  {
    what: "another delivery id",
    isGenuine: false,
    change: (headers) => ({ ...headers, "sallyport-delivery-id": "other" }),
  },
  {
    what: "no signature of this key",
    isGenuine: false,
    change: (headers) => ({ ...headers, signature: "sallyport=:AAAA:" }),
  },
];

let folder: string;
let keyFile: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-test-"));
  keyFile = join(folder, "key");
  await writeFile(keyFile, `${Buffer.from(KEY).toString("base64url")}\n`);
  return () => rm(folder, { recursive: true, force: true });
});

function signed(): Record<string, string> {
  const url = new URL("http://127.0.0.1:3000/messages?x=1");
  const headers = localSignature(KEY, { method: "POST", url, body: BODY, deliveryId: "D1" }, Date.now());
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

describe("the check in Node", () => {
  test.each(CASES)("$what: $isGenuine", async ({ isGenuine, change, body = BODY }) => {
    const file = join(folder, "check.mjs");
    await writeFile(file, await printed("js"));
    const { isFromConnector } = (await import(file)) as { isFromConnector: (...args: unknown[]) => boolean };
    expect(isFromConnector(keyFile, "POST", "/messages", change(signed()), Buffer.from(body))).toBe(isGenuine);
  });
});

describe.skipIf(!(await hasPython()))("the check in Python", () => {
  test.each(CASES)("$what: $isGenuine", async ({ isGenuine, change, body = BODY }) => {
    const file = join(folder, "check.py");
    const call = `\nimport sys, json\nprint(is_from_connector(sys.argv[1], "POST", "/messages", json.loads(sys.argv[2]), sys.argv[3].encode()))\n`;
    await writeFile(file, (await printed("python")) + call);
    const { stdout } = await run("python3", [file, keyFile, JSON.stringify(change(signed())), body]);
    expect(stdout.trim()).toBe(isGenuine ? "True" : "False");
  });
});
