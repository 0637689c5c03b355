import { expect, test } from "vitest";
import { checkRevocation } from "../../src/auth/revocation.ts";
import type { VerifiedAit } from "../../src/auth/token.ts";
import { fakeRegistry, requestScope } from "./fixture.ts";

const ait = { claims: { jti: "the-jti" } } as unknown as VerifiedAit;

test.each([
  ["passes when its jti is not in the list", () => {}, "hit"],
  [
    "is refused when its jti is in the list",
    (r: ReturnType<typeof fakeRegistry>) => void r.revokedJtis.add("the-jti"),
    "ait-revoked",
  ],
  [
    "is not judged without a list",
    (r: ReturnType<typeof fakeRegistry>) => void (r.down.crl = "unavailable"),
    "crl-unavailable",
  ],
  [
    "is not judged by a list that is too old",
    (r: ReturnType<typeof fakeRegistry>) => void (r.down.crl = "too-old"),
    "crl-too-old",
  ],
])("a verified token %s", async (_what, prepare, expected) => {
  const registry = fakeRegistry();
  prepare(registry);
  const checked = await checkRevocation(ait, registry.crl, requestScope());
  expect(checked.ok ? checked.value.cache : checked.error.reason).toBe(expected);
});
