/** DIDs, ULIDs, base64url, pairing tickets: one spelling each. */
import * as fc from "fast-check";
import { parsePairTicket } from "../../../src/trust/ticket.ts";
import { decodeBase64Url, encodeBase64Url } from "../../../src/wire/base64url.ts";
import { didAuthority, parseAgentDid, parseHumanDid } from "../../../src/wire/did.ts";
import { isUlid } from "../../../src/wire/ulid.ts";
import { agentDid, anyText, mutated, ulid } from "../arbitraries.ts";
import { must, target } from "../target.ts";

/** Letter by letter, without a pattern. */
function isLabel(label: string): boolean {
  const letters = [...label];
  const plain = (letter: string): boolean => (letter >= "a" && letter <= "z") || (letter >= "0" && letter <= "9");
  return (
    letters.length >= 1 &&
    letters.length <= 63 &&
    letters.every((letter) => letter.length === 1 && (plain(letter) || letter === "-")) &&
    plain(letters[0] ?? "") &&
    plain(letters.at(-1) ?? "")
  );
}

function isDid(text: string, kind: string): boolean {
  const [scheme, method, authority, is, id, ...rest] = text.split(":");
  if (
    scheme !== "did" ||
    method !== "cdi" ||
    is !== kind ||
    authority === undefined ||
    id === undefined ||
    rest.length > 0
  )
    return false;
  const labels = authority.split(".");
  const isName = authority.length <= 253 && labels.length >= 2 && labels.every(isLabel);
  return (
    isName &&
    id.length === 26 &&
    [...id].every((letter) => "0123456789ABCDEFGHJKMNPQRSTVWXYZ".includes(letter) && letter.length === 1)
  );
}

export const identifiers = [
  target<string>({
    name: "dids",
    weight: 4,
    acceptedAtLeast: 0.2,
    arbitrary: fc.oneof(mutated(agentDid), mutated(agentDid.map((did) => did.replace(":agent:", ":human:"))), anyText),
    holds(text) {
      must((parseAgentDid(text) !== null) === isDid(text, "agent"), "an agent DID is what the grammar says");
      must((parseHumanDid(text) !== null) === isDid(text, "human"), "a human DID is what the grammar says");
      const did = parseAgentDid(text);
      if (did !== null) must(didAuthority(did) === text.split(":")[2], "the authority stands in third place");
      return did !== null || parseHumanDid(text) !== null;
    },
  }),
  target<string>({
    name: "ulids",
    weight: 1,
    acceptedAtLeast: 0.05,
    arbitrary: fc.oneof(mutated(ulid), anyText),
    holds(text) {
      must(
        isUlid(text) ===
          (text.length === 26 && [...text].every((letter) => "0123456789ABCDEFGHJKMNPQRSTVWXYZ".includes(letter))),
        "a ULID has 26 letters of its alphabet",
      );
      return isUlid(text);
    },
  }),
  target<string>({
    name: "base64url",
    weight: 4,
    acceptedAtLeast: 0.2,
    arbitrary: fc.oneof(
      mutated(fc.uint8Array({ maxLength: 70 }).map((bytes) => Buffer.from(bytes).toString("base64url"))),
      anyText,
    ),
    holds(text) {
      const expected = Buffer.from(Buffer.from(text, "base64url").toString("base64url")).toString() === text;
      const bytes = decodeBase64Url(text);
      must((bytes !== null) === expected, "exactly what re-encodes to itself is decoded");
      if (bytes !== null)
        must(
          encodeBase64Url(bytes) === text && Buffer.from(bytes).equals(Buffer.from(text, "base64url")),
          "the bytes are the same as Node's",
        );
      return bytes !== null;
    },
  }),
  target<string>({
    name: "tickets",
    weight: 1,
    acceptedAtLeast: 0.1,
    arbitrary: fc.oneof(
      mutated(
        fc
          .uint8Array({ minLength: 32, maxLength: 32 })
          .map((bytes) => `spp_${Buffer.from(bytes).toString("base64url")}`),
      ),
      anyText,
    ),
    holds(text) {
      // White space and backticks are what a chat puts around a ticket, or into it.
      const ticket = text.replaceAll(/[\s`]/g, "");
      const body = ticket.slice(4);
      const bytes = Buffer.from(body, "base64url");
      must(
        (parsePairTicket(text) !== null) ===
          (ticket.startsWith("spp_") && bytes.length === 32 && bytes.toString("base64url") === body),
        "a ticket is its prefix and 32 bytes",
      );
      return parsePairTicket(text) !== null;
    },
  }),
];
