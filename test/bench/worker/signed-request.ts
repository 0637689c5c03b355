/** What the floor and the ceiling do alike: one SHA-256 and one Ed25519 verify on the proxy's own signed requests. */

export type SignedRequest = { senderDid: string; nonce: string; text: string };

type Sender = { did: string; key: CryptoKey };

/** Senders this isolate has seen, by their `Authorization` header, so that a key is imported once as in the proxy. */
const senders = new Map<string, Sender>();
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const BASE64URL = { alphabet: "base64url" } as const;

/** @returns null for a body or a proof that is not what was signed */
export async function readSigned(request: Request): Promise<SignedRequest | null> {
  const { headers } = request;
  const authorization = headers.get("Authorization") ?? "";
  const sender = senders.get(authorization) ?? (await readSender(authorization));
  const body = await request.arrayBuffer();
  const bodySha256 = encode(await crypto.subtle.digest("SHA-256", body));
  if (bodySha256 !== headers.get("X-Claw-Body-SHA256")) return null;
  const nonce = headers.get("X-Claw-Nonce") ?? "";
  const path = request.url.slice(request.url.indexOf("/", 8));
  const signed = ["CLAW-PROOF-V1", request.method, path, headers.get("X-Claw-Timestamp"), nonce, bodySha256].join("\n");
  const proof = Uint8Array.fromBase64(headers.get("X-Claw-Proof") ?? "", BASE64URL);
  if (!(await crypto.subtle.verify("Ed25519", sender.key, proof, encoder.encode(signed)))) return null;
  return { senderDid: sender.did, nonce, text: decoder.decode(body) };
}

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
