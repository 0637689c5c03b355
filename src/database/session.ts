/** A session for lists: as fresh as the caller asks for, and as what the same request has written or seen before. */
import type { CallContext } from "../rpc/method.ts";

/** @returns a session that starts at the later of the caller's bookmark and this request's own; without one, at the primary */
export function readSession({ db, bookmarks }: Pick<CallContext, "db" | "bookmarks">): D1DatabaseSession {
  return db.withSession(later(bookmarks?.given ?? null, bookmarks?.latest ?? null) ?? "first-primary");
}

/** Notes how far a session has seen, for the answer; a list never sets it back behind what was written before. */
export function noteBookmark({ bookmarks }: Pick<CallContext, "bookmarks">, session: D1DatabaseSession): void {
  if (bookmarks) bookmarks.latest = later(bookmarks.latest, session.getBookmark());
}

/** The later of two bookmarks of D1, which sort by age as text. */
function later(one: string | null, other: string | null): string | null {
  if (one === null || other === null) return one ?? other;
  return one > other ? one : other;
}
