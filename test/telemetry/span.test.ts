import { expect, test } from "vitest";
import { annotateSpan, inSpan } from "../../src/telemetry/span.ts";

test("a span gives back what its work gives, and lets through what it throws, also where nobody traces", async () => {
  expect(inSpan("work", () => 5)).toBe(5);
  await expect(inSpan("work", () => Promise.resolve("later"))).resolves.toBe("later");
  await expect(inSpan("work", () => Promise.reject(new RangeError("broken")))).rejects.toThrow(RangeError);
  expect(() =>
    inSpan("work", () => {
      throw new RangeError("broken");
    }),
  ).toThrow(RangeError);
  expect(() => annotateSpan({ "sallyport.route": "/hooks/agent" })).not.toThrow();
});
