import { describe, expect, test } from "vitest";
import { createOperatorTokens, readAuthorization, readCredential, sealCredential } from "../../src/auth/credential.ts";
import { sha256Base64Url } from "../../src/wire/proof.ts";
import { newAgentDid, NOW_MS } from "../trust/call-context.ts";

const WINDOW = { nowMs: NOW_MS, skewMaxSeconds: 300, proofV1: "accept" as const };
const requestWith = (headers: Headers) => ({
  method: "POST",
  pathWithQuery: "/rpc",
  authorities: ["gate.example.com"],
  headers,
});

const schemeOf = (value: string): string => {
  const read = readAuthorization(new Headers({ Authorization: value }));
  return read.ok ? read.value.scheme : read.error.reason;
};

test.each([
  ["Claw x", "claw"],
  ["CLAW  x", "claw"],
  ["Device x", "device"],
  ["shared x", "shared"],
  ["Bearer x", "bearer"],
  ["Bearer", "credential-malformed"],
  ["Clawx", "scheme-unknown"],
  ["Digest x", "scheme-unknown"],
  ["__proto__ x", "scheme-unknown"],
])("Authorization %j is %s", (value, expected) => {
  expect(schemeOf(value)).toBe(expected);
});

describe("the operator's token", () => {
  const [first, second] = ["first-token-0123456789-0123456789", "second-token-0123456789-0123456789"];

  test("is either of those that are set, and nothing near them", async () => {
    const operators = createOperatorTokens([first, second]);
    const near = ["", "first", first.slice(0, -1), `${first} `, first.toUpperCase(), first + second];
    expect(await Promise.all([first, second].map((token) => operators.matches(token)))).toEqual([true, true]);
    expect(new Set(await Promise.all(near.map((token) => operators.matches(token))))).toEqual(new Set([false]));
  });

  test("is nothing where none is set", async () => {
    expect(await createOperatorTokens([]).matches("")).toBe(false);
  });
});

describe("a sealed credential", () => {
  test("carries the SHA-256 of the whole secret, prefix included", async () => {
    const secret = `spk_${"k".repeat(43)}`;
    const form = readCredential({ scheme: "bearer", secret }, requestWith(new Headers()), WINDOW);
    if (!form.ok || form.value.kind === "operator") throw new Error("no API key");
    const hash = await sha256Base64Url(new TextEncoder().encode(secret));
    expect(await sealCredential(form.value)).toEqual({ kind: "apiKey", keyHash: hash });
  });

  test("of a shared secret names its agent", async () => {
    const agentDid = newAgentDid();
    const secret = `sps_${"s".repeat(43)}`;
    const form = readCredential(
      { scheme: "shared", secret },
      requestWith(new Headers({ "X-Claw-Agent-Did": agentDid })),
      WINDOW,
    );
    if (!form.ok || form.value.kind === "operator") throw new Error("no shared secret");
    expect(await sealCredential(form.value)).toMatchObject({ kind: "shared", agentDid });
  });

  test("of a device needs every header of its proof", () => {
    const headers = new Headers({ "X-Claw-Agent-Did": newAgentDid() });
    const form = readCredential({ scheme: "device", secret: `spd_${"d".repeat(43)}` }, requestWith(headers), WINDOW);
    expect(form.ok ? null : form.error.reason).toBe("timestamp-missing");
  });
});
