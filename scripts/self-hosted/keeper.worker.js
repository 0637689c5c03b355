/**
 * A Worker beside the one that serves, for the process that started both: statements on the database, and what the clock fires.
 * Only who knows `SECRET` is answered.
 */
export default {
  async fetch(request, { DB, SALLYPORT, SECRET }) {
    if (!isSame(request.headers.get("Authorization") ?? "", SECRET)) return new Response(null, { status: 403 });
    try {
      const { cron, statements } = await request.json();
      if (cron !== undefined) return Response.json(await SALLYPORT.scheduled({ cron }));
      const prepared = statements.map(({ sql, values = [] }) => DB.prepare(sql).bind(...values));
      return Response.json((await DB.batch(prepared)).map(({ results }) => results));
    } catch (error) {
      return new Response(String(error), { status: 500 });
    }
  },
};

function isSame(given, wanted) {
  const [one, other] = [given, wanted].map((text) => new TextEncoder().encode(text));
  return one.byteLength === other.byteLength && crypto.subtle.timingSafeEqual(one, other);
}
