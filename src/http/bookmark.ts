/** `X-Sallyport-Bookmark`: D1's own bookmark, so that a caller's list sees what the caller has written. Contract §5. */
import type { Context } from "hono";
import type { Bookmarks } from "../database/session.ts";
import type { HttpEnv } from "./middleware/request-context.ts";

export const BOOKMARK_HEADER = "X-Sallyport-Bookmark";

/** What D1 makes: four groups of hexadecimal digits. */
const BOOKMARK = /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/;

/** @returns what the caller brought, or null where that is no bookmark of this proxy */
export function readBookmark(c: Context<HttpEnv>): Bookmarks | null {
  const given = c.req.header(BOOKMARK_HEADER) ?? null;
  if (given !== null && !BOOKMARK.test(given)) return null;
  const bookmarks: Bookmarks = { given, latest: null };
  c.set("bookmarks", bookmarks);
  return bookmarks;
}
