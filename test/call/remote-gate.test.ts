/** What a method tells its caller of a gate that it asked. */
import { describe, expect, test } from "vitest";
import { callRemoteGate } from "../../src/call/remote-gate.ts";
import { createLog } from "../../src/telemetry/log.ts";
import { ProxyError } from "../../src/wire/problem.ts";

const asked = (call: () => Promise<unknown>) => callRemoteGate({ log: createLog() }, call);

describe("a gate that is asked by a method", () => {
  test("answers for itself", async () => {
    await expect(asked(() => Promise.resolve("done"))).resolves.toBe("done");
  });

  test.each([
    "internal error; reference = abc",
    "database or disk is full: SQLITE_FULL",
    "Durable Object reset because its code was updated.",
  ])("and fails (%s) is out of reach, and may be asked again", async (message) => {
    const answer = asked(() => Promise.reject(new Error(message)));
    await expect(answer).rejects.toMatchObject({
      code: "PROXY_AUTH_DEPENDENCY_UNAVAILABLE",
      status: 503,
      retryAfterMs: 1_000,
    });
  });

  test("refuses in its own words", async () => {
    const refusal = new ProxyError("PROXY_NOT_FOUND");
    await expect(asked(() => Promise.reject(refusal))).rejects.toBe(refusal);
    // As one arrives that crossed from another object.
    const crossed = Object.assign(new Error("Try again."), { code: "DRAIN_TIMEOUT", retryAfterMs: 500 });
    await expect(asked(() => Promise.reject(crossed))).rejects.toMatchObject({
      code: "DRAIN_TIMEOUT",
      retryAfterMs: 500,
    });
  });
});
