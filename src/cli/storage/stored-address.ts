/** The address of an installation, as the files of this command hold it. */
import * as z from "zod/mini";
import { parseUrl } from "../../wire/url.ts";

/** An http(s) URL: what is none would be found much later, as a request that cannot be made. */
export const storedAddress = z.string().check(
  z.refine((text: string) => {
    const protocol = parseUrl(text)?.protocol;
    return protocol === "https:" || protocol === "http:";
  }, "is no http(s) address"),
);
