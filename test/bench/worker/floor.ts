/**
 * The floor: the smallest Worker that gives a hook's promise, and nothing else. One SHA-256, one Ed25519 verify, one durable
 * insert in the sender's object (which decides the nonce), one in the recipient's. It takes the same signed requests as the
 * proxy; it neither verifies the identity token nor delivers anything.
 */
import { DurableObject } from "cloudflare:workers";
import { readSigned } from "./signed-request.ts";

type FloorEnv = { BOX: DurableObjectNamespace<Box> };

export class Box extends DurableObject<FloorEnv> {
  constructor(ctx: DurableObjectState, env: FloorEnv) {
    super(ctx, env);
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS box (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID");
  }

  /** @returns whether the row is new; the answer leaves when it is on disk */
  put(id: string, body: string): boolean {
    return (
      this.ctx.storage.sql.exec("INSERT INTO box (id, body) VALUES (?, ?) ON CONFLICT DO NOTHING", id, body)
        .rowsWritten > 0
    );
  }
}

export default {
  async fetch(request: Request, env: FloorEnv): Promise<Response> {
    if (request.method === "GET") return new Response("ok");
    const signed = await readSigned(request);
    if (signed === null) return new Response(null, { status: 401 });
    const { senderDid, nonce, text } = signed;
    if (!(await env.BOX.getByName(senderDid).put(nonce, text))) return new Response(null, { status: 401 });
    await env.BOX.getByName(request.headers.get("X-Claw-Recipient-Agent-Did") ?? "").put(nonce, text);
    return Response.json({ accepted: true, deliveryId: nonce }, { status: 202 });
  },
} satisfies ExportedHandler<FloorEnv>;
