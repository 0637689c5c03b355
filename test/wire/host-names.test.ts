import { describe, expect, test } from "vitest";
import { isPublicName, isReservedName } from "../../src/wire/host-names.ts";

describe("a host name that can be nobody's own", () => {
  test.each([
    "registry.sallyport.example",
    "example.com",
    "a.example.org",
    "host.test",
    "localhost",
    "a.localhost.",
    "b.local",
  ])("%s is one", (host) => expect(isReservedName(host)).toBe(true));
  test.each(["example.dev", "myexample.com", "example.com.de", "testing.app", "sallyport.workers.dev"])(
    "%s is none",
    (host) => expect(isReservedName(host)).toBe(false),
  );
});

test("the public reaches names of two labels or more that can be somebody's, and no addresses", () => {
  const hosts = ["sallyport.workers.dev", "127.0.0.1", "[::1]", "10.1.2.3", "gate", "gate.internal", "proxy.example"];
  expect(hosts.filter(isPublicName)).toEqual(["sallyport.workers.dev"]);
});
