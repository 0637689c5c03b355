/** `sallyport deploy`, with the command as users run it and a stand-in for wrangler that fails on cue. */
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { newInnerRunner, type Runner } from "../program.ts";
import { standInFor, type StandIn } from "./wrangler-stand-in.ts";

const ISSUER = "https://agents.alice-and-sons.com";
const READING = ["whoami", "d1 list", "secret list"];
const CHANGING = ["d1 create", "d1 migrations apply", "deploy"];

/** A Worker that is ready once it has been uploaded, and answers what a client asks first. */
async function workerOf(): Promise<string> {
  const server = createServer((request, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(request.url === "/v1/time" ? { unixMs: Date.now() } : { status: "ready" }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function machine(issuer = ISSUER): Promise<{ command: Runner; cloudflare: StandIn; url: string }> {
  const command = await newInnerRunner();
  const url = await workerOf();
  return { command, cloudflare: await standInFor(command.workingFolder, url, issuer), url };
}

const deploymentsOf = async ({ home }: Runner): Promise<unknown> =>
  JSON.parse(await readFile(join(home, "deployments.json"), "utf8"));

test.each([
  ["no TOML, at line 2", 'name = "sallyport"\nname ='],
  ["names no Worker", "# nothing"],
])("a project file that is wrong (%s) is said to be, and nothing is done", async (why, text) => {
  const { command, cloudflare } = await machine();
  await writeFile(join(command.workingFolder, "wrangler.toml"), text);
  expect(await command.run(["deploy", "--yes"])).toMatchObject({
    code: 3,
    err: expect.stringContaining(why) as string,
  });
  expect((await cloudflare.account()).worker).toBeNull();
});

test("a first deployment makes database, schema, Worker and secrets, and leaves this machine set up for it", async () => {
  const { command, cloudflare, url } = await machine();
  const ended = await command.run(["deploy", "--yes"]);
  expect(ended).toMatchObject({ code: 0, out: expect.stringContaining(`deployed: ${url}`) as string });
  const { databases, migrations, worker, ran } = await cloudflare.account();
  expect({ databases, migrations, uploads: worker?.uploads, updateMode: worker?.updateMode }).toEqual({
    databases: ["sallyport"],
    migrations: 1,
    uploads: 1,
    updateMode: null,
  });
  expect(ran.indexOf("d1 migrations apply")).toBeLessThan(ran.indexOf("deploy"));
  const { OPERATOR_TOKEN: token, REGISTRY_SIGNING_SECRET: signing } = worker?.secrets ?? {};
  expect([token, signing]).toEqual([expect.stringMatching(/^.{43}$/), expect.stringMatching(/^.{43}$/)]);
  expect(token).not.toBe(signing);
  expect(await deploymentsOf(command)).toEqual({ "a1/sallyport": worker?.secrets });
  expect((await stat(join(command.home, "deployments.json"))).mode & 0o077).toBe(0);
  expect(JSON.parse(await readFile(join(command.home, "operator.json"), "utf8"))).toEqual({ token, baseUrl: url });
  // Nowhere but in the file.
  expect(`${ended.out}${ended.err}`).not.toContain(token);
  expect(`${ended.out}${ended.err}`).not.toContain(signing);
});

test("a later deployment sets no secret again, and --immediate ends sockets at once", async () => {
  const { command, cloudflare } = await machine();
  await command.json(["deploy", "--yes"]);
  const before = (await cloudflare.account()).worker?.secrets;
  expect(await command.json(["deploy", "--yes", "--immediate"])).toMatchObject({ secretsSet: [], secretsFile: null });
  expect((await cloudflare.account()).worker).toEqual({ secrets: before, uploads: 2, updateMode: "immediate" });
});

describe("a command of wrangler that fails", () => {
  const cases = [
    ...[...READING, ...CHANGING].map((failing) => ({ failing, after: false, when: "before it has done anything" })),
    ...CHANGING.map((failing) => ({ failing, after: true, when: "after it has done all, its answer lost" })),
  ];
  test.each(cases)("$failing, $when: that is said, and the next run goes on", async ({ failing, after }) => {
    const { command, cloudflare } = await machine();
    await cloudflare.change((account) => account.fails.push({ command: failing, after }));
    const failed = await command.run(["deploy", "--yes"]);
    expect(failed.code).not.toBe(0);
    expect(failed.err).toMatch(/wrangler/);
    const made = CHANGING.includes(failing) ? await deploymentsOf(command) : null;
    expect((await command.run(["deploy", "--yes"])).code).toBe(0);
    const { databases, worker } = await cloudflare.account();
    expect(databases).toEqual(["sallyport"]);
    expect(await deploymentsOf(command)).toEqual({ "a1/sallyport": worker?.secrets });
    if (made !== null) expect(await deploymentsOf(command)).toEqual(made);
  });
});

test("a list of secrets that cannot be had is not taken for none: the secrets of a Worker are never replaced", async () => {
  const { command, cloudflare } = await machine();
  await command.json(["deploy", "--yes"]);
  const before = (await cloudflare.account()).worker?.secrets;
  await cloudflare.change((account) => account.fails.push({ command: "secret list", after: false }));
  expect((await command.run(["deploy", "--yes"])).code).toBe(6);
  expect((await cloudflare.account()).worker?.secrets).toEqual(before);
});

test("--dry-run says each step, and changes nothing at Cloudflare nor on this machine", async () => {
  const { command, cloudflare } = await machine();
  const { out } = await command.run(["deploy", "--dry-run"]);
  for (const line of ["database: to do: make sallyport", "secrets: to do: make and set", "nothing has been done"]) {
    expect(out).toContain(line);
  }
  const { databases, worker, ran } = await cloudflare.account();
  expect({ databases, worker, ran }).toEqual({
    databases: [],
    worker: null,
    ran: ["whoami", "d1 list", "secret list"],
  });
  await expect(stat(command.home)).rejects.toThrow(/ENOENT/);
});

test.each([
  "https://registry.sallyport.example",
  "https://example.com",
  "http://alice-and-sons.com",
  "https://localhost",
])("an issuer that can be nobody's own is not deployed: %s", async (issuer) => {
  const { command, cloudflare } = await machine(issuer);
  expect(await command.run(["deploy", "--yes"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("--issuer") as string,
  });
  expect(await command.run(["deploy", "--yes", "--issuer", issuer])).toMatchObject({ code: 2 });
  expect((await cloudflare.account()).worker).toBe(null);
});

test("a chosen issuer is written into wrangler.toml, in its own line", async () => {
  const { command, cloudflare } = await machine("https://registry.sallyport.example");
  await command.json(["deploy", "--yes", "--issuer", `${ISSUER}/`]);
  const settings = await cloudflare.settings();
  expect(settings).toContain(
    `# Stays as it is.\nREGISTRY_URL = "embedded"\nREGISTRY_ISSUER = "${ISSUER}"\n[[d1_databases]]`,
  );
});

test("without a login, with several accounts, or outside a checkout, it says what to do", async () => {
  const { command, cloudflare } = await machine();
  await cloudflare.change((account) => (account.loggedIn = false));
  expect(await command.run(["deploy"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("wrangler login") as string,
  });
  await cloudflare.change((account) => {
    account.loggedIn = true;
    account.accounts.push({ id: "b2", name: "Bob" });
  });
  expect(await command.run(["deploy"])).toMatchObject({ code: 3, err: expect.stringContaining("b2 (Bob)") as string });
  const elsewhere = await newInnerRunner();
  expect(await elsewhere.run(["deploy"])).toMatchObject({
    code: 3,
    err: expect.stringContaining("checkout") as string,
  });
});

test("a machine that is set up for another installation stays so", async () => {
  const { command } = await machine();
  const other = await workerOf();
  await command.json(["init", "--url", other, "--operator-token-file", "-"], "t".repeat(40));
  const { out } = await command.run(["deploy", "--yes"]);
  expect(out).toContain(`this machine is set up for ${other}`);
  expect(JSON.parse(await readFile(join(command.home, "operator.json"), "utf8"))).toMatchObject({ baseUrl: other });
});
