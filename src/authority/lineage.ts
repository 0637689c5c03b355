/**
 * What a credential was derived from: the device or key that made it, what that was made by, and so on. It ends with each of
 * them, in the turn that ends them, because whoever asks whether it holds asks about all of its lineage. Contract §5.
 */
import * as z from "zod/mini";
import type { FencingToken } from "../database/fencing.ts";
import { apiKeyAuthority, derivedAuthority, deviceAuthority } from "./names.ts";
import { SCOPES } from "./scopes.ts";

/** Longest lineage: the check and the fence of each call go through all of it. */
export const LINEAGE_MAX = 16;

const deviceOrigin = z.object({
  device: z.string(),
  /** The device's epoch when it made what descends from it. */
  epoch: z.int(),
  /** What it handed out: losing any of these later ends what was made with them. */
  scopes: z.array(z.enum(SCOPES)),
});
const keyOrigin = z.object({ apiKey: z.string() });
const lineageSchema = z.array(z.union([deviceOrigin, keyOrigin]));

export type DeviceOrigin = z.infer<typeof deviceOrigin>;
export type KeyOrigin = z.infer<typeof keyOrigin>;
/** Outermost maker first; empty for what the agent itself or an operator made. */
export type Lineage = readonly (DeviceOrigin | KeyOrigin)[];

/** @returns the lineage of a stored text @throws for a text that this system never wrote */
export function parseLineage(text: string): Lineage {
  return lineageSchema.parse(JSON.parse(text));
}

/** Where ends are known. */
export type Endings = {
  devices: { holdsOrigin(origin: DeviceOrigin): boolean };
  apiKeys: { isEnded(apiKeyId: string): boolean };
};

/** @returns whether everything that a credential descends from still holds */
export function lineageHolds({ devices, apiKeys }: Endings, lineage: Lineage): boolean {
  return lineage.every((origin) =>
    "device" in origin ? devices.holdsOrigin(origin) : !apiKeys.isEnded(origin.apiKey),
  );
}

/** @returns what a batch of a descendant is fenced by in D1, for the whole lineage */
export function lineageTokens(self: string, lineage: Lineage): FencingToken[] {
  return lineage.flatMap((origin) =>
    "device" in origin
      ? origin.scopes.map((scope) => ({
          authority: derivedAuthority(self, origin.device, scope),
          epoch: origin.epoch,
        }))
      : [{ authority: apiKeyAuthority(origin.apiKey), epoch: 0 }],
  );
}

/** @returns the authorities of a lineage by their names, as an end names them */
export function lineageNames(self: string, lineage: Lineage): string[] {
  return lineage.map((origin) =>
    "device" in origin ? deviceAuthority(self, origin.device) : apiKeyAuthority(origin.apiKey),
  );
}
