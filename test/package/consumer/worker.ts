/** A Worker that uses the library: makes a key, reads it back, and says what a proof is signed over. */
import { exportKeys, generateKeys, importKeys } from "sallyport/client";
import { parseAgentDid, proofText } from "sallyport/wire";

export default {
  async fetch(): Promise<Response> {
    const keys = await importKeys(await exportKeys(await generateKeys()));
    const text = proofText({ method: "GET", pathWithQuery: "/", timestamp: "1", nonce: "n", bodySha256: "h" });
    return Response.json({ ok: parseAgentDid("x") === null, x: keys.publicKey.length, lines: text.split("\n").length });
  },
};
