import { expect, test } from "vitest";
import { checkAccess, readAccessToken } from "../../src/auth/access.ts";
import type { VerifiedAit } from "../../src/auth/token.ts";
import { fakeRegistry, NOW_MS, requestScope } from "./fixture.ts";

const ait = { claims: { sub: "did", jti: "jti" } } as unknown as VerifiedAit;

test.each([
  [null, "access-missing"],
  ["", "access-missing"],
  ["a b", "access-malformed"],
  ["a, a", "access-malformed"],
  ["\u00e4", "access-malformed"],
  ["a".repeat(4_097), "access-malformed"],
  ["a".repeat(4_096), null],
])("an access header of %j", (value, reason) => {
  const read = readAccessToken(new Headers(value === null ? {} : { "X-Claw-Agent-Access": value }));
  expect(read.ok ? null : read.error.reason).toBe(reason);
});

test("a token that the registry validated goes on with the moment at which it did", async () => {
  const checked = await checkAccess(ait, "token", fakeRegistry().access, requestScope());
  expect(checked).toEqual({
    ok: true,
    value: { verdict: { keyHash: "key-hash", validatedAtMs: NOW_MS }, cache: "hit" },
  });
});

test("a token that the registry refused is refused", async () => {
  const registry = fakeRegistry();
  registry.invalidAccess.add("token");
  const checked = await checkAccess(ait, "token", registry.access, requestScope());
  expect(checked.ok ? null : checked.error.reason).toBe("access-invalid");
});

test("a registry out of reach refuses nobody here: the gate may remember", async () => {
  const registry = fakeRegistry();
  registry.down.access = true;
  const checked = await checkAccess(ait, "token", registry.access, requestScope());
  expect(checked).toEqual({
    ok: true,
    value: { verdict: { keyHash: "key-hash", validatedAtMs: null }, cache: "unavailable" },
  });
});
