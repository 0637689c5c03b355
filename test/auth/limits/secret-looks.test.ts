import { expect, test } from "vitest";
import { createLockout, FAILURES_MAX } from "../../../src/auth/limits/lockout.ts";
import { createSecretLooks } from "../../../src/auth/limits/secret-looks.ts";

const ADDRESS = "192.0.2.1";

function lockedLooks(perSecret = 1_200) {
  const lockout = createLockout();
  for (let count = 0; count < FAILURES_MAX; count += 1) lockout.failed(ADDRESS, 0);
  return createSecretLooks(lockout, perSecret);
}

test("looks at secrets: an address that guesses has 60 unknown ones looked at in a minute", () => {
  const looks = lockedLooks();
  const waits = Array.from({ length: 100 }, (_, count) => looks.waitMs(`guess ${count}`, ADDRESS, 1_000));
  expect(waits.filter((waitMs) => waitMs === 0)).toHaveLength(60);
  expect(waits.at(-1)).toBe(60_000);
  expect(looks.waitMs("guess", "192.0.2.2", 1_000)).toBe(0);
  expect(looks.waitMs("guess", ADDRESS, 61_000)).toBe(0);
});

test("looks at secrets: one that was right is not refused for the guesses of its address", () => {
  const looks = lockedLooks();
  looks.wasRight("right", 0);
  for (let count = 0; count < 100; count += 1) looks.waitMs(`guess ${count}`, ADDRESS, 1_000);
  expect(looks.waitMs("right", ADDRESS, 1_000)).toBe(0);
});

test("looks at secrets: one secret is looked at so often in a minute, whoever shows it", () => {
  const looks = createSecretLooks(createLockout(), 20);
  const waits = Array.from({ length: 200 }, (_, at) => looks.waitMs("key", `192.0.2.${at}`, at));
  expect(waits.filter((waitMs) => waitMs === 0)).toHaveLength(20);
  expect(looks.waitMs("other key", ADDRESS, 200)).toBe(0);
  expect(createSecretLooks(createLockout(), 0).waitMs("key", ADDRESS, 0)).toBe(0);
});
