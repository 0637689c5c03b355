/** The devices of this machine: a file each, with the device's own key and its token. */
import * as z from "zod/mini";
import { CliError, EXIT } from "../terminal/errors.ts";
import { NAME_PATTERN, openRecordFiles, type RecordFiles } from "./record-files.ts";
import { storedAddress } from "./stored-address.ts";

const deviceSchema = z.object({
  name: z.string().check(z.regex(NAME_PATTERN)),
  baseUrl: storedAddress,
  agentDid: z.string(),
  deviceId: z.string(),
  keys: z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string(), d: z.string() }),
  /** Null until it is claimed, and after it has ended by this machine's own doing. */
  token: z.nullable(z.string()),
  scopes: z.array(z.string()),
  /** When the token expires; null where that is not known. */
  expiresAtMs: z.nullable(z.number()),
});

/** A device of this machine, with its secrets. */
export type DeviceRecord = z.infer<typeof deviceSchema>;
/** The devices of this machine. */
export type DeviceFiles = RecordFiles<DeviceRecord>;

/** @param home the command's folder */
export function openDeviceFiles(home: string): DeviceFiles {
  return openRecordFiles(home, {
    folder: "devices",
    schema: deviceSchema,
    advice:
      "Correct it, or restore it from a copy; the key in it may still be good. Otherwise move it away, and pair the device anew: `sallyport device request`.",
    missing: (name, names) =>
      new CliError("NO_DEVICE", `there is no device ${name} on this machine`, {
        exitCode: EXIT.setup,
        advice: names.length === 0 ? "Ask for one: `sallyport device request NAME`." : `There is: ${names.join(", ")}.`,
      }),
  });
}
