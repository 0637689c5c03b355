/** How an agent introduces itself to a peer when they pair (contract §3, `/pair/start`). */
import * as z from "zod/mini";

const NAME_MAX_LENGTH = 128;
const ORIGIN_MAX_LENGTH = 256;

/** Control characters, lone surrogates, line and paragraph separators, and the marks that re-order the text around them. */
const UNPRINTABLE = /[\p{Cc}\p{Cs}\u2028\u2029\u202A-\u202E\u2066-\u2069]/u;

const name = z.string().check(
  z.refine((text: string) => /\S/u.test(text), "is blank"),
  z.refine((text: string) => text.length <= NAME_MAX_LENGTH, `is longer than ${NAME_MAX_LENGTH} characters`),
  z.refine((text: string) => !UNPRINTABLE.test(text), "has a control character"),
);

const origin = z.string().check(z.refine(isHttpOrigin, "is no http(s) origin"));

export const profileSchema = z.object({ agentName: name, humanName: name, proxyOrigin: z.optional(origin) });
export type Profile = z.infer<typeof profileSchema>;

function isHttpOrigin(text: string): boolean {
  if (text.length > ORIGIN_MAX_LENGTH || !/^https?:\/\//.test(text)) return false;
  return URL.parse(text)?.origin === text;
}
