/**
 * A registry of the bench's own, which fails on cue: it makes agents, publishes keys and an empty revocation list, and judges
 * access tokens.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { ulid } from "../support/program/relay-client.ts";

export type RegistryMood = "up" | "down" | "hanging";

export type RegistryServer = {
  url: string;
  /** Down: connections are cut. Hanging: they are taken and never answered. */
  become(mood: RegistryMood): void;
  /** Calls since the last time this was asked. */
  calls(): number;
  stop(): Promise<void>;
};

const KID = "bench-key";
const AUTHORITY = "registry.sallyport.example";
export const REGISTRY_ISSUER = `https://${AUTHORITY}`;
const LIVES_SECONDS = 3_600;

export async function startRegistry(): Promise<RegistryServer> {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const { x } = publicKey.export({ format: "jwk" });
  const signingKey = createPrivateKey(privateKey.export({ format: "pem", type: "pkcs8" }));
  let mood: RegistryMood = "up";
  let calls = 0;
  const open = new Set<Socket>();

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { url, method } = request;
    const body = await textOf(request);
    // Agents are made whatever the mood: that is the bench's own door.
    if (method === "POST" && url === "/v1/agents") {
      json(response, 201, newAgent(signingKey, JSON.parse(body) as { name: string; publicKey: string }));
      return;
    }
    calls += 1;
    if (mood === "hanging") return;
    if (mood === "down") {
      request.socket.destroy();
      return;
    }
    if (url === "/.well-known/claw-keys.json")
      json(response, 200, { keys: [{ kid: KID, alg: "EdDSA", crv: "Ed25519", x, status: "active" }] });
    else if (url === "/v1/crl") json(response, 200, { crl: emptyList(signingKey) });
    else if (url === "/v1/agents/auth/validate") response.writeHead(204).end();
    else response.writeHead(404).end();
  };

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  server.on("connection", (socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the registry has no port");

  return {
    url: `http://127.0.0.1:${address.port}`,
    become: (next) => void (mood = next),
    calls() {
      const since = calls;
      calls = 0;
      return since;
    },
    async stop() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The answer of `POST /v1/agents`, contract §3. */
function newAgent(signingKey: KeyObject, { name, publicKey }: { name: string; publicKey: string }) {
  const [agentDid, ownerDid] = [`did:cdi:${AUTHORITY}:agent:${ulid()}`, `did:cdi:${AUTHORITY}:human:${ulid()}`];
  const now = Math.floor(Date.now() / 1_000);
  const times = { iat: now, nbf: now - 1, exp: now + LIVES_SECONDS };
  const cnf = { jwk: { kty: "OKP", crv: "Ed25519", x: publicKey } };
  const ait = jws(signingKey, "AIT", {
    iss: REGISTRY_ISSUER,
    sub: agentDid,
    ownerDid,
    name,
    framework: "bench",
    cnf,
    ...times,
    jti: ulid(),
  });
  const token = randomBytes(32).toString("base64url");
  return {
    agentDid,
    ownerDid,
    tenantId: "bench",
    ait,
    access: { token, expiresAtMs: times.exp * 1_000 },
    refreshToken: "",
  };
}

function emptyList(signingKey: KeyObject): string {
  const iat = Math.floor(Date.now() / 1_000);
  return jws(signingKey, "CRL", { iss: REGISTRY_ISSUER, jti: ulid(), iat, exp: iat + LIVES_SECONDS, revocations: [] });
}

function jws(signingKey: KeyObject, typ: string, claims: unknown): string {
  const input = `${encoded({ alg: "EdDSA", typ, kid: KID })}.${encoded(claims)}`;
  return `${input}.${sign(null, Buffer.from(input), signingKey).toString("base64url")}`;
}

function encoded(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}
