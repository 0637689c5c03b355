/** Compares two hashes in base64url in constant time. */
export function sameHash(a: string, b: string): boolean {
  const encoder = new TextEncoder();
  const [left, right] = [encoder.encode(a), encoder.encode(b)];
  return left.length === right.length && crypto.subtle.timingSafeEqual(left, right);
}

/** Lets leak scanners find a secret; after each stand 32 random bytes in base64url. */
export const SECRET_PREFIXES = { device: "spd_", shared: "sps_", apiKey: "spk_" } as const;
