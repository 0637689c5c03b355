/** A database that counts its round trips. */
export function countRoundTrips(db: D1Database): { db: D1DatabaseSession; trips: () => number } {
  let trips = 0;
  const session = db.withSession("first-primary");
  const count = <T>(run: () => Promise<T>): Promise<T> => {
    trips += 1;
    return run();
  };
  const counted = (statement: D1PreparedStatement): D1PreparedStatement =>
    new Proxy(statement, {
      get(target, name) {
        if (name === "bind") return (...values: unknown[]) => counted(target.bind(...values));
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== "function") return member;
        return (...values: unknown[]) => count(() => Reflect.apply(member, target, values) as Promise<unknown>);
      },
    });
  return {
    db: {
      prepare: (sql) => counted(session.prepare(sql)),
      batch: (statements) => count(() => session.batch(statements)),
      getBookmark: () => session.getBookmark(),
    },
    trips: () => trips,
  };
}
