import { describe, expect, test } from "vitest";
import { didAuthority, newDid, parseAgentDid, parseHumanDid } from "../../src/wire/did.ts";
import { isUlid, newUlid } from "../../src/wire/ulid.ts";
import vectors from "../vectors/dids.json";

describe("a DID", () => {
  test.each(vectors.agents)("%s names an agent and no human", (did) => {
    expect(parseAgentDid(did)).toBe(did);
    expect(parseHumanDid(did)).toBeNull();
  });

  test.each(vectors.humans)("%s names a human and no agent", (did) => {
    expect(parseHumanDid(did)).toBe(did);
    expect(parseAgentDid(did)).toBeNull();
  });

  test.each(vectors.refused)("refuses $why", ({ did }) => {
    expect(parseAgentDid(did)).toBeNull();
    expect(parseHumanDid(did)).toBeNull();
  });

  test("its authority is the DNS name between method and kind", () => {
    const did = parseAgentDid("did:cdi:registry.example.com:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B");
    expect(did && didAuthority(did)).toBe("registry.example.com");
  });

  test("an authority of exactly 253 characters is one, and one more is none", () => {
    const label = "a".repeat(63);
    const longest = [label, label, label, "b".repeat(61)].join(".");
    expect(longest).toHaveLength(253);
    expect(parseAgentDid(newDid(longest, "agent", newUlid(0)))).not.toBeNull();
    expect(() => newDid(`${longest}c`, "agent", newUlid(0))).toThrow(RangeError);
  });
});

describe("a ULID", () => {
  test("sorts by its time", () => {
    const times = [0, 1, 31, 32, 1_700_000_000_000, 1_795_348_800_000, 2 ** 48 - 1];
    const ulids = times.map(newUlid);
    expect(ulids.toSorted()).toEqual(ulids);
    expect(ulids.every(isUlid)).toBe(true);
  });

  test("carries its milliseconds in the first ten characters", () => {
    // The example of the ULID specification: 01ARYZ6S41 is 1469918176385.
    expect(newUlid(1_469_918_176_385).slice(0, 10)).toBe("01ARYZ6S41");
  });

  test("does not repeat within a millisecond", () => {
    expect(new Set(Array.from({ length: 1_000 }, () => newUlid(1))).size).toBe(1_000);
  });

  test.each([
    "",
    "01ARYZ6S41",
    "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0I",
    "01k9zj8q6v3n5t7w2x4y6z8a0b",
    "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B\n",
  ])("%j is none", (text) => {
    expect(isUlid(text)).toBe(false);
  });
});
