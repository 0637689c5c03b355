/** The forms in which a message reaches a program, each by its name. */
import { clawdentity } from "./clawdentity.ts";
import { cloudEvents } from "./cloud-events.ts";
import type { Format } from "./format.ts";
import { openClaw } from "./open-claw.ts";
import { raw } from "./raw.ts";
import { sallyport } from "./sallyport.ts";

/** `--format`, in the order of the help. */
export const FORMATS = {
  sallyport,
  openclaw: openClaw,
  clawdentity,
  raw,
  cloudevents: cloudEvents,
} as const satisfies Record<string, Format>;

/** The name of a form. */
export type FormatName = keyof typeof FORMATS;

/** @returns whether a form has this name */
export function isFormatName(name: string): name is FormatName {
  return Object.hasOwn(FORMATS, name);
}
