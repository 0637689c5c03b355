/** An HTTP server of the test's own that registers, renews and pairs as a Sallyport does, as far as the command looks. */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { onTestFinished } from "vitest";

export const TOKEN = "operator-token-of-the-test-0123456789";
export const PEER_DID = "did:cdi:registry.example.com:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0J";
const AGENT_DID = "did:cdi:registry.example.com:agent:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0B";
const OWNER_DID = "did:cdi:registry.example.com:human:01K9ZJ8Q6V3N5T7W2X4Y6Z8A0C";

export type Seen = {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
};
/** `isLost`: the request has its effect, and the connection ends without an answer. */
export type Answer = {
  readonly status?: number;
  readonly json?: unknown;
  readonly text?: string;
  readonly isLost?: boolean;
};
export type Answering = (request: Seen) => Answer | undefined;
export type Overriding = (request: Seen) => Answer | undefined | Promise<Answer | undefined>;

export const problem = (status: number, code: string): Answer => ({
  status,
  json: { type: "about:blank", title: code, status, detail: `says ${code}`, code, requestId: "request-1" },
});

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

/**
 * An identity token in form; it is not verified here.
 *
 * @param inSeconds from when it holds; 100 seconds ago by default
 */
export function ait(publicKey: string, lifeSeconds: number, inSeconds: number = -100): string {
  const now = Math.floor(Date.now() / 1_000);
  const claims = {
    iss: "https://registry.example.com",
    sub: AGENT_DID,
    ownerDid: OWNER_DID,
    name: "Scout",
    framework: "sallyport",
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: publicKey } },
    iat: now - 100,
    nbf: now + inSeconds,
    exp: now + lifeSeconds,
    jti: "01K9ZJ8Q6V3N5T7W2X4Y6Z8A0D",
  };
  return `${part({ alg: "EdDSA", typ: "AIT", kid: "k" })}.${part(claims)}.AAAA`;
}

export type Registry = {
  readonly url: string;
  /** What it was asked, in order. */
  readonly seen: Seen[];
  /** Sees each attempt to open a WebSocket, which is refused. */
  onUpgrade(look: (request: IncomingMessage) => void): void;
};

/** @param override looked at first; undefined leaves the usual answer */
export async function startRegistry(override: Overriding = () => undefined): Promise<Registry> {
  const seen: Seen[] = [];
  let generation = 0;
  const credential = (publicKey: string) => ({
    agentDid: AGENT_DID,
    ownerDid: OWNER_DID,
    tenantId: "t",
    ait: ait(publicKey, 30 * 86_400),
    access: { token: `access-${(generation += 1)}`, expiresAtMs: Date.now() + 900_000 },
    refreshToken: `refresh-${generation}`,
  });
  const usual: Answering = ({ method, path, headers, body }) => {
    const isOperator = headers.authorization === `Bearer ${TOKEN}`;
    const publicKey = (): string => (JSON.parse(body) as { publicKey: string }).publicKey;
    switch (`${method} ${path.split("?")[0] ?? ""}`) {
      case "GET /health":
      case "GET /ready":
        return { json: { ok: true } };
      case "GET /v1/time":
        return { json: { unixMs: Date.now() } };
      case "POST /v1/agents":
        return isOperator ? { status: 201, json: credential(publicKey()) } : problem(401, "PROXY_AUTH_INVALID_TOKEN");
      case "GET /v1/agents":
        return isOperator ? { json: { agents: [] } } : problem(401, "PROXY_AUTH_INVALID_TOKEN");
      case "POST /v1/agents/rekey":
        return { json: credential(publicKey()) };
      case "POST /v1/agents/revoke":
        return { json: { revoked: true } };
      case "POST /v1/agents/auth/refresh":
        return {
          json: {
            access: { token: `access-${(generation += 1)}`, expiresAtMs: Date.now() + 900_000 },
            refreshToken: `refresh-${generation}`,
          },
        };
      case "POST /pair/start":
        return { json: { ticket: "spt_ticket", expiresAtMs: Date.now() + 300_000 } };
      case "GET /pair/peers":
        return { json: { peers: [{ agentDid: PEER_DID, agentName: "Bob\u001b[31m", since: 1 }] } };
      case "GET /v1/dead-letters":
        return { json: { deadLetters: [] } };
      case "POST /hooks/agent":
        return {
          status: 202,
          json: { accepted: true, deliveryId: "d_1", state: "queued", delivered: false, queued: true, queueDepth: 1 },
        };
      default:
        return problem(404, "PROXY_NOT_FOUND");
    }
  };
  const server = createServer((incoming, response) => {
    void text(incoming).then(async (body) => {
      const request = { method: incoming.method ?? "", path: incoming.url ?? "", headers: incoming.headers, body };
      seen.push(request);
      const answer = (await override(request)) ?? usual(request) ?? problem(404, "PROXY_NOT_FOUND");
      if (answer.isLost === true) {
        response.destroy();
        return;
      }
      response.writeHead(answer.status ?? 200, { "Content-Type": "application/json" });
      response.end(answer.text ?? JSON.stringify(answer.json));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    onUpgrade(look) {
      server.on("upgrade", (request, socket) => {
        look(request);
        socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
      });
    },
  };
}
