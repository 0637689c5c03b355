/**
 * The ceiling: the sender's half of a hook's promise, and nothing else. One SHA-256, one Ed25519 verify, one RPC to the
 * sender's object, and one durable insert there: at once after a silence, else in one commit with all that come before the
 * next turn of the event loop. There is no recipient. Whatever keeps the promise with one verify, one hop and one commit does
 * at least this much.
 */
import { DurableObject } from "cloudflare:workers";
import { readSigned } from "./signed-request.ts";

type CeilingEnv = { BOX: DurableObjectNamespace<Box> };
/** As in the proxy's gates. */
const LULL_MS = 5;

type Waiting = { id: string; body: string; tell: (isNew: boolean) => void };

export class Box extends DurableObject<CeilingEnv> {
  #waiting: Waiting[] = [];
  #committedAtMs = 0;

  constructor(ctx: DurableObjectState, env: CeilingEnv) {
    super(ctx, env);
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS box (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID");
  }

  /** @returns whether the row is new; the answer leaves when it is on disk */
  put(id: string, body: string): Promise<boolean> {
    return new Promise((tell) => {
      this.#waiting.push({ id, body, tell });
      if (this.#waiting.length > 1) return;
      if (Date.now() - this.#committedAtMs >= LULL_MS) this.#commit();
      else setTimeout(() => this.#commit(), 0);
    });
  }

  #commit(): void {
    const { sql } = this.ctx.storage;
    const group = this.#waiting;
    this.#waiting = [];
    this.#committedAtMs = Date.now();
    const areNew = group.map(
      ({ id, body }) =>
        sql.exec("INSERT INTO box (id, body) VALUES (?, ?) ON CONFLICT DO NOTHING", id, body).rowsWritten > 0,
    );
    for (const [index, { tell }] of group.entries()) tell(areNew[index] === true);
  }
}

export default {
  async fetch(request: Request, env: CeilingEnv): Promise<Response> {
    if (request.method === "GET") return new Response("ok");
    const signed = await readSigned(request);
    if (signed === null) return new Response(null, { status: 401 });
    const { senderDid, nonce, text } = signed;
    if (!(await env.BOX.getByName(senderDid).put(nonce, text))) return new Response(null, { status: 401 });
    return Response.json({ accepted: true, deliveryId: nonce }, { status: 202 });
  },
} satisfies ExportedHandler<CeilingEnv>;
