/**
 * The floor: the smallest Worker that gives a hook's promise, and nothing else. One SHA-256, one Ed25519 verify, one durable
 * insert in the sender's object (which decides the nonce), one in the recipient's. It takes the same signed requests as the
 * proxy; it neither verifies the identity token nor delivers anything.
 */
import { DurableObject } from "cloudflare:workers";

type FloorEnv = { BOX: DurableObjectNamespace<Box> };
type Sender = { did: string; key: CryptoKey };

/** Senders this isolate has seen, by their `Authorization` header, so that a key is imported once as in the proxy. */
const senders = new Map<string, Sender>();
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const BASE64URL = { alphabet: "base64url" } as const;

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
    const { headers } = request;
    const authorization = headers.get("Authorization") ?? "";
    const sender = senders.get(authorization) ?? (await readSender(authorization));
    const body = await request.arrayBuffer();
    const bodySha256 = encode(await crypto.subtle.digest("SHA-256", body));
    if (bodySha256 !== headers.get("X-Claw-Body-SHA256")) return new Response(null, { status: 401 });
    const nonce = headers.get("X-Claw-Nonce") ?? "";
    const path = request.url.slice(request.url.indexOf("/", 8));
    const signed = ["CLAW-PROOF-V1", request.method, path, headers.get("X-Claw-Timestamp"), nonce, bodySha256].join(
      "\n",
    );
    const proof = Uint8Array.fromBase64(headers.get("X-Claw-Proof") ?? "", BASE64URL);
    if (!(await crypto.subtle.verify("Ed25519", sender.key, proof, encoder.encode(signed))))
      return new Response(null, { status: 401 });

    const text = decoder.decode(body);
    if (!(await env.BOX.getByName(sender.did).put(nonce, text))) return new Response(null, { status: 401 });
    await env.BOX.getByName(headers.get("X-Claw-Recipient-Agent-Did") ?? "").put(nonce, text);
    return Response.json({ accepted: true, deliveryId: nonce }, { status: 202 });
  },
} satisfies ExportedHandler<FloorEnv>;

async function readSender(authorization: string): Promise<Sender> {
  const claims = authorization.split(".")[1] ?? "";
  const { sub, cnf } = JSON.parse(decoder.decode(Uint8Array.fromBase64(claims, BASE64URL))) as {
    sub: string;
    cnf: { jwk: { x: string } };
  };
  const key = await crypto.subtle.importKey(
    "raw",
    Uint8Array.fromBase64(cnf.jwk.x, BASE64URL),
    { name: "Ed25519" },
    false,
    ["verify"],
  );
  const sender = { did: sub, key };
  senders.set(authorization, sender);
  return sender;
}

function encode(digest: ArrayBuffer): string {
  return new Uint8Array(digest).toBase64({ alphabet: "base64url", omitPadding: true });
}
