/** DIDs of this system, contract §1: `did:cdi:<authority>:<agent|human>:<ULID>`. */

/** The DID of an agent; only {@link parseAgentDid} and {@link newDid} make one. */
export type AgentDid = string & { readonly __did: "agent" };
/** The DID of the human who owns agents; only {@link parseHumanDid} and {@link newDid} make one. */
export type HumanDid = string & { readonly __did: "human" };

const DID_PATTERN = /^did:cdi:([a-z0-9.-]{3,253}):(agent|human):[0-9A-HJKMNP-TV-Z]{26}$/;
const AUTHORITY_PATTERN = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const AUTHORITY_MAX_LENGTH = 253;

/** @returns the agent DID, or null when the text is none. */
export function parseAgentDid(text: string): AgentDid | null {
  return isDid(text, "agent") ? (text as AgentDid) : null;
}

/** @returns the human DID, or null when the text is none. */
export function parseHumanDid(text: string): HumanDid | null {
  return isDid(text, "human") ? (text as HumanDid) : null;
}

/** @returns whether the text is a lower-case DNS name of two labels or more, at most 253 characters long. */
export function isDidAuthority(text: string): boolean {
  return text.length <= AUTHORITY_MAX_LENGTH && AUTHORITY_PATTERN.test(text);
}

/** @returns the authority of the DID, a lower-case DNS name. */
export function didAuthority(did: AgentDid | HumanDid): string {
  return did.slice("did:cdi:".length, did.indexOf(":", "did:cdi:".length));
}

/**
 * @param authority lower-case DNS name, the host name of the issuing registry
 * @param kind what the DID names
 * @param ulid a ULID of 26 characters
 * @throws RangeError when the parts do not make a DID
 */
export function newDid(authority: string, kind: "agent", ulid: string): AgentDid;
export function newDid(authority: string, kind: "human", ulid: string): HumanDid;
export function newDid(authority: string, kind: "agent" | "human", ulid: string): AgentDid | HumanDid {
  const did = `did:cdi:${authority}:${kind}:${ulid}`;
  if (!isDid(did, kind)) throw new RangeError("a DID needs a lower-case DNS name of two labels or more, and a ULID");
  return did as AgentDid | HumanDid;
}

function isDid(text: string, kind: "agent" | "human"): boolean {
  const match = DID_PATTERN.exec(text);
  return match !== null && match[2] === kind && isDidAuthority(match[1] ?? "");
}
