/** Host names that are nobody's, and those of this machine or network. */

const RESERVED_TLDS = new Set(["example", "test", "invalid", "localhost", "local", "internal"]);
const RESERVED_DOMAINS = new Set(["example.com", "example.net", "example.org"]);

/**
 * Whether nobody can own a name: RFC 2606 §2 and §3, RFC 6762 §3, and the name that ICANN keeps for private use.
 *
 * @param host in lower case, without a port
 */
export function isReservedName(host: string): boolean {
  const labels = host.replace(/\.$/, "").split(".");
  return RESERVED_TLDS.has(labels.at(-1) ?? "") || RESERVED_DOMAINS.has(labels.slice(-2).join("."));
}

/**
 * Whether a host is one that the public reaches by name: neither an address, nor a name of one label, nor reserved.
 *
 * @param host as `URL.hostname` gives it
 */
export function isPublicName(host: string): boolean {
  const isAddress = host.startsWith("[") || /^[\d.]+$/.test(host);
  return !isAddress && host.includes(".") && !isReservedName(host);
}
