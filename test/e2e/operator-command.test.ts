/** `sallyport operator` and `sallyport audit` against the real program: keys with roles, their end, and who did what when. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { newInnerRunner } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { type Proxy, startProxy } from "../support/program/proxy.ts";

let proxy: Proxy;
beforeAll(async () => {
  proxy = await startProxy();
});
afterAll(() => proxy.stop());

const machineOf = async (token: string) => {
  const runner = await newInnerRunner({ SALLYPORT_OPERATOR_TOKEN: token });
  await runner.json(["init", "--url", proxy.url, "--human-name", "Ann"]);
  return runner;
};
type Made = { operatorId: string; key: string };
type Listed = { operators: { operatorId: string; name: string; role: string; revokedAtMs?: number }[] };
type Audit = { entries: { action: string; operator?: string; subject: string; atMs: number }[] };

test("operator: a key with a role does what its role may until it is revoked", async () => {
  const root = await machineOf(OPERATOR_TOKEN);
  const made = (await root.json(["operator", "create", "ann", "registrar", "--expires-in-days", "7"])) as Made;
  expect(made.key).toMatch(/^spo_/);
  expect((await root.run(["operator", "create", "ann", "king"])).code).toBe(2);
  const ann = await machineOf(made.key);
  expect(await ann.json(["agent", "register", "scout"])).toMatchObject({ name: "scout" });
  expect((await ann.run(["operator", "list"])).err).toContain("PROXY_AUTH_FORBIDDEN");
  expect(((await root.json(["operator", "list"])) as Listed).operators).toMatchObject([
    { name: "ann", role: "registrar" },
  ]);

  const since = String(Date.now());
  expect((await root.run(["operator", "revoke", made.operatorId])).code).toBe(2);
  expect(await root.json(["operator", "revoke", made.operatorId, "--yes"])).toMatchObject({
    operatorId: made.operatorId,
  });
  expect((await ann.run(["agent", "list", "--all"])).code).toBe(5);
  expect(((await root.json(["operator", "list"])) as Listed).operators[0]?.revokedAtMs).toBeGreaterThanOrEqual(
    Number(since),
  );
});

test("audit list: by time, and by name", async () => {
  const root = await machineOf(OPERATOR_TOKEN);
  const made = (await root.json(["operator", "create", "bea", "viewer"])) as Made;
  const subject = `operator:${made.operatorId}`;
  const list = async (...more: string[]) =>
    ((await root.json(["audit", "list", "--subject", subject, ...more])) as Audit).entries;
  const [entry] = await list("--since", "5m");
  expect(entry).toMatchObject({ action: "operator.create", operator: "root" });
  const at = (ms: number): string => new Date(ms).toISOString();
  expect(await list("--since", at(entry!.atMs), "--until", at(entry!.atMs))).toHaveLength(1);
  expect(await list("--since", at(entry!.atMs + 1))).toEqual([]);
  expect(await list("--until", at(entry!.atMs - 1))).toEqual([]);
  expect((await root.run(["audit", "--subject", subject])).out).toContain("root");
  expect((await root.run(["audit", "list", "--since", "yesterday"])).code).toBe(2);
});
