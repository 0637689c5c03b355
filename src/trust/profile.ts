/** How an agent introduces itself to a peer when they pair (contract §3, `/pair/start`). */
import * as z from "zod/mini";
import { plainText } from "../wire/text.ts";

const NAME_LENGTH_MAX = 128;
const ORIGIN_MAX_LENGTH = 256;

const name = plainText(1, NAME_LENGTH_MAX);

const origin = z.string().check(z.refine(isHttpOrigin, "is no http(s) origin"));

export const profileSchema = z.object({ agentName: name, humanName: name, proxyOrigin: z.optional(origin) });
export type Profile = z.infer<typeof profileSchema>;

function isHttpOrigin(text: string): boolean {
  if (text.length > ORIGIN_MAX_LENGTH || !/^https?:\/\//.test(text)) return false;
  return URL.parse(text)?.origin === text;
}
