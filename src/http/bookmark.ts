/** `X-Sallyport-Bookmark`: D1's own bookmark, so that a caller's list sees what the caller has written. Contract §5. */
import type { Context } from "hono";
import type { Bookmarks } from "../rpc/method.ts";
import { ProxyError } from "../wire/problem.ts";
import type { HttpEnv } from "./request-scope.ts";

export const BOOKMARK_HEADER = "X-Sallyport-Bookmark";

/** What D1 makes: four groups of hexadecimal digits. */
const BOOKMARK = /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/;

/** @throws ProxyError PROXY_BAD_REQUEST for what is no bookmark */
export function readBookmark(c: Context<HttpEnv>): Bookmarks {
  const given = c.req.header(BOOKMARK_HEADER) ?? null;
  if (given !== null && !BOOKMARK.test(given)) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: `${BOOKMARK_HEADER} is none that this proxy gave out.` });
  }
  const bookmarks: Bookmarks = { given, latest: null };
  c.set("bookmarks", bookmarks);
  return bookmarks;
}
