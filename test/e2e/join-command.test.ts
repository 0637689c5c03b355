/** `sallyport invite` and `sallyport join` against the real program: two machines, one link. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { newInnerRunner, newRunner, type Runner } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

type Made = { inviteId: string; invite: string; link: string; ownerDid: string; tenantId: string };
type Joined = { name: string; agentDid: string; ownerDid: string; tenantId: string; baseUrl: string; file: string };
type Listed = { invites: { inviteId: string; note?: string; usesLeft: number; agents: string[] }[] };

async function operator(): Promise<Runner> {
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
  return runner;
}

const invited = async (runner: Runner, ...more: string[]) =>
  (await runner.json(["invite", "create", "--name", "bob", ...more])) as Made;

test("a newcomer joins by the link alone, on a machine where nothing is set up, and talks", async () => {
  const ann = await operator();
  const alice = (await ann.json(["agent", "register", "alice"])) as { agentDid: string };
  const made = await invited(ann);
  const bob = await newRunner();
  const args = ["join", "-", "--name", "bob", "--human-name", "Bob"];
  const joined = (await bob.json(args, `${made.link}\n`)) as Joined;
  expect(joined).toMatchObject({ name: "bob", baseUrl: proxy.url, ownerDid: made.ownerDid, tenantId: made.tenantId });
  const { invites } = (await ann.json(["invite", "list"])) as Listed;
  expect(invites.find(({ inviteId }) => inviteId === made.inviteId)).toMatchObject({
    note: "bob",
    usesLeft: 0,
    agents: [joined.agentDid],
  });

  const { ticket } = (await bob.json(["pair", "start"])) as { ticket: string };
  await ann.json(["pair", "confirm", ticket]);
  expect(await bob.json(["send", alice.agentDid, "--text", "hello"])).toMatchObject({ accepted: true });
});

test("says what to do next, and shows neither the invite nor the key", async () => {
  const made = await invited(await operator());
  const bob = await newInnerRunner();
  const { code, out, err } = await bob.run(["join", made.link, "--name", "bob the first"]);
  expect(code, err).toBe(0);
  expect(out).toContain("next: sallyport pair start");
  const { keys } = JSON.parse(await readFile(join(bob.home, "agents/bob the first.json"), "utf8")) as {
    keys: { d: string };
  };
  for (const secret of [made.invite, keys.d]) expect(out + err).not.toContain(secret);
});

test("an invite is good for its uses, and then for nobody: the refused name stays free", async () => {
  const { link } = await invited(await operator());
  const bob = await newInnerRunner();
  await bob.json(["join", link, "--name", "bob"]);
  const refused = await bob.run(["join", link, "--name", "eve"]);
  expect(refused).toMatchObject({ code: 5, err: expect.stringContaining("PROXY_AUTH_INVALID_TOKEN") as string });
  const { agents } = (await bob.json(["agent", "list"])) as { agents: { name: string; isDefault: boolean }[] };
  expect(agents).toMatchObject([{ name: "bob", isDefault: true }]);
  await expect(readFile(join(bob.home, "new-keys/eve.json"))).rejects.toThrow("ENOENT");
});

test("a revoked invite lets nobody in, and is revoked only by one who says so", async () => {
  const ann = await operator();
  const { inviteId, link } = await invited(ann, "--uses", "2");
  const bob = await newInnerRunner();
  await bob.json(["join", link, "--name", "bob"]);
  expect((await ann.run(["invite", "revoke", inviteId])).code).toBe(2);
  expect(await ann.json(["invite", "revoke", inviteId, "--yes"])).toMatchObject({ inviteId });
  expect((await bob.run(["join", link, "--name", "eve"])).code).toBe(5);
  expect((await ann.run(["invite", "list"])).out).toContain("revoked");
});

test("an agent of another Sallyport is added beside what is set up, which stays", async () => {
  const { link } = await invited(await operator());
  const bob = await newInnerRunner();
  await bob.json(["init", "--url", "http://127.0.0.1:1", "--no-check"]);
  const { out } = await bob.run(["join", link, "--name", "bob"]);
  expect(out).toContain("stays http://127.0.0.1:1");
  expect(await bob.json(["pair", "peers", "--agent", "bob"])).toEqual({ peers: [] });
});

test.each([
  ["half a link", "https://gate.example.com/join"],
  ["a link without its invite", "https://gate.example.com/join#"],
  ["another page's link", "https://gate.example.com/other#spi_AbC123"],
  ["a link with a password", "https://ann:secret@gate.example.com/join#spi_AbC123"],
  ["nothing", ""],
])("%s is refused before anything is sent, and is not shown", async (_what, link) => {
  const bob = await newInnerRunner();
  const { code, err } = await bob.run(["join", "-"], link);
  expect(code).toBe(2);
  expect(err).not.toMatch(/AbC123|secret/);
});

test("an invite is not taken to another address than its link's", async () => {
  const bob = await newInnerRunner();
  const args = ["join", "https://gate.example.com/join#spi_AbC123", "--url", proxy.url];
  expect(await bob.run(args)).toMatchObject({ code: 2, err: expect.stringContaining("leads to") as string });
});
