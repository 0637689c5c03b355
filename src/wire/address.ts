/** Addresses of callers, made comparable before anything is counted or locked by them. */

/** How many of an IPv6 address's eight groups name its network: one host usually owns a whole /64. */
const NETWORK_GROUPS = 4;

/**
 * An address as limits count it, the audit records it and locks hold it.
 *
 * - IPv4 in dotted form, also where it comes dressed as IPv6: mapped `::ffff:0:0/96` and compatible `::/96` (RFC 4291
 *   §2.5.5), and behind NAT64's well-known prefix `64:ff9b::/96` (RFC 6052 §2.1). Otherwise all of these would share one /64.
 * - Any other IPv6 address by its /64, in lower case without leading noughts: `2001:db8:0:1::/64`.
 *
 * @param text as `CF-Connecting-IP` gives it; a zone (`%eth0`) is dropped
 * @returns null for what is no address
 */
export function countedAddress(text: string): string | null {
  const bare = text.trim();
  if (!bare.includes(":")) return parseIpv4(bare)?.join(".") ?? null;
  const groups = parseIpv6(bare.replace(/%.*$/s, ""));
  if (groups === null) return null;
  return (
    embeddedIpv4(groups) ??
    `${groups
      .slice(0, NETWORK_GROUPS)
      .map((group) => group.toString(16))
      .join(":")}::/64`
  );
}

/** @returns the IPv4 address that an IPv6 address stands for, or null where it stands for itself */
function embeddedIpv4(groups: readonly number[]): string | null {
  const [high = 0, low = 0] = groups.slice(6);
  const startsWith = (...prefix: readonly number[]): boolean => prefix.every((group, at) => groups[at] === group);
  const isMapped = startsWith(0, 0, 0, 0, 0, 0xffff);
  const isNat64 = startsWith(0x64, 0xff9b, 0, 0, 0, 0);
  // Not `::` and `::1`, which are addresses of their own.
  const isCompatible = startsWith(0, 0, 0, 0, 0, 0) && (high !== 0 || low > 1);
  if (!isMapped && !isNat64 && !isCompatible) return null;
  return [high >> 8, high & 0xff, low >> 8, low & 0xff].join(".");
}

function parseIpv4(text: string): number[] | null {
  const parts = text.split(".");
  if (parts.length !== 4 || parts.some((part) => !/^(?:0|[1-9][0-9]{0,2})$/.test(part))) return null;
  const bytes = parts.map(Number);
  return bytes.every((byte) => byte <= 255) ? bytes : null;
}

/** RFC 4291 §2.2: eight groups, one run of noughts left out, the last 32 bits in dotted form if need be. */
function parseIpv6(text: string): number[] | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const left = parseGroups(halves[0] ?? "", halves.length === 1);
  const right = parseGroups(halves[1] ?? "", true);
  if (left === null || right === null) return null;
  const missing = 8 - left.length - right.length;
  if (halves.length === 1) return missing === 0 ? left : null;
  return missing >= 1 ? [...left, ...Array.from({ length: missing }, () => 0), ...right] : null;
}

function parseGroups(text: string, endsAddress: boolean): number[] | null {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [at, part] of parts.entries()) {
    if (endsAddress && at === parts.length - 1 && part.includes(".")) {
      const bytes = parseIpv4(part);
      if (bytes === null) return null;
      const [a = 0, b = 0, c = 0, d = 0] = bytes;
      groups.push(a * 256 + b, c * 256 + d);
    } else {
      if (!/^[0-9A-Fa-f]{1,4}$/.test(part)) return null;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}
