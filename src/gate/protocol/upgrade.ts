/** How the socket upgrade crosses to the gate: the one request that cannot be an RPC carries text alone. */
import { decodeBase64Url, encodeBase64Url } from "../../wire/base64url.ts";
import type { GateCaller } from "./calls.ts";

/** Header of the one internal request; nothing from outside reaches a gate under it. */
export const UPGRADE_HEADER = "x-sallyport-upgrade";

/** What the Worker verified before it asks for a socket. `protocol` is the subprotocol that the answer chooses. */
export type Upgrade = { requestId: string; origin: string | null } & (
  | { caller: Exclude<GateCaller, { kind: "operator" }>; protocol?: string }
  | { ticketSha256: string; protocol: string }
);

/** @returns the header value by which an upgrade crosses to a gate, read by {@link readUpgrade} */
export function writeUpgrade(upgrade: Upgrade): string {
  return JSON.stringify(upgrade, (_name, value: unknown) =>
    value instanceof Uint8Array ? { bytes: encodeBase64Url(value) } : value,
  );
}

/** @returns what {@link writeUpgrade} wrote */
export function readUpgrade(text: string): Upgrade {
  return JSON.parse(text, (_name, value: unknown) => {
    const bytes = typeof value === "object" && value !== null && "bytes" in value ? value.bytes : null;
    return typeof bytes === "string" ? decodeBase64Url(bytes) : value;
  }) as Upgrade;
}
