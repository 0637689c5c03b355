/** A session for lists: as fresh as the caller asks for, and as what the same request has written or seen before. */

/** D1's bookmarks of one request, contract §5: `X-Sallyport-Bookmark`. */
export type Bookmarks = {
  /** What the caller has seen so far. */
  readonly given: string | null;
  /** What it will have seen with this answer. */
  latest: string | null;
};

/** @returns a session that starts at the later of the caller's bookmark and this request's own; without one, at the primary */
export function readSession({ db, bookmarks }: { db: D1Database; bookmarks?: Bookmarks | null }): D1DatabaseSession {
  return db.withSession(later(bookmarks?.given ?? null, bookmarks?.latest ?? null) ?? "first-primary");
}

/** Notes how far a session has seen, for the answer; a list never sets it back behind what was written before. */
export function noteBookmark({ bookmarks }: { bookmarks?: Bookmarks | null }, session: D1DatabaseSession): void {
  if (bookmarks) bookmarks.latest = later(bookmarks.latest, session.getBookmark());
}

/** The later of two bookmarks of D1, which sort by age as text. */
function later(one: string | null, other: string | null): string | null {
  if (one === null || other === null) return one ?? other;
  return one > other ? one : other;
}
