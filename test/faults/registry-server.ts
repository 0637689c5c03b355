/** A registry of the faults' own: it issues, revokes and judges, and fails or lies on cue. */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { ulid } from "../support/program/relay-client.ts";

/**
 * Down: connections are cut. Hanging: never answered. Slow: answered after the proxy has given up. Failing: 500. Dripping: a
 * byte now and then, without end. Elsewhere: every question is sent on to where the answer is always yes.
 */
export const MOODS = [
  "up",
  "down",
  "hanging",
  "slow",
  "failing",
  "junk",
  "truncated",
  "endless",
  "dripping",
  "elsewhere",
  "forged-crl",
  "old-crl",
  "no-crl",
  "other-issuer",
  "expired-crl",
  "token-as-crl",
  "doubled-key",
  "odd-verdict",
] as const;
export type Mood = (typeof MOODS)[number];

export type FaultyRegistry = {
  url: string;
  become(mood: Mood): void;
  /** Into the list, from the next one on. */
  revoke(agentDid: string): void;
  /** An identity token like this agent's, signed by a key that is not the registry's, under its `kid`. */
  forgedAit(agentDid: string, x: string): string;
  calls(): number;
  stop(): Promise<void>;
};

const KID = "faults-key";
const AUTHORITY = "registry.sallyport.example";
export const REGISTRY_ISSUER = `https://${AUTHORITY}`;
const LIVES_SECONDS = 7_200;
/** Nobody asks here unless they were sent. */
const YES = "/always/yes";
const SLOW_MS = 2_500;

type Known = { agentDid: string; ownerDid: string; jti: string; access: string; name: string };

export async function startFaultyRegistry(): Promise<FaultyRegistry> {
  const own = generateKeyPairSync("ed25519");
  const strangers = generateKeyPairSync("ed25519");
  const x = String(own.publicKey.export({ format: "jwk" }).x);
  const agents = new Map<string, Known>();
  const revocations: { jti: string; agentDid: string; revokedAt: number }[] = [];
  const open = new Set<Socket>();
  let mood: Mood = "up";
  let calls = 0;
  const firstList = crlOf(own.privateKey, [], REGISTRY_ISSUER);

  const keys = (): unknown => {
    const key = { kid: KID, alg: "EdDSA", crv: "Ed25519", x, status: "active" };
    return {
      keys:
        mood === "doubled-key" ? [key, { ...key, x: String(strangers.publicKey.export({ format: "jwk" }).x) }] : [key],
    };
  };
  const list = (): string => {
    if (mood === "old-crl") return firstList;
    // Rightly signed, and over.
    if (mood === "expired-crl") return crlOf(own.privateKey, [], REGISTRY_ISSUER, { agedSeconds: 2 * LIVES_SECONDS });
    // Rightly signed, and said to be something else.
    if (mood === "token-as-crl") return crlOf(own.privateKey, [], REGISTRY_ISSUER, { typ: "AIT" });
    // What the liar would have: an empty list that the proxy believes.
    if (mood === "forged-crl") return crlOf(strangers.privateKey, [], REGISTRY_ISSUER);
    return crlOf(
      own.privateKey,
      mood === "other-issuer" ? [] : revocations,
      mood === "other-issuer" ? "https://other.sallyport.example" : REGISTRY_ISSUER,
    );
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { url, method, headers } = request;
    let body = "";
    for await (const chunk of request) body += String(chunk);
    // Agents are made whatever the mood: that is the driver's own door.
    if (method === "POST" && url === "/v1/agents") {
      json(response, 201, issue(JSON.parse(body) as { name: string; publicKey: string }));
      return;
    }
    calls += 1;
    if (url === YES) {
      response.writeHead(204).end();
      return;
    }
    switch (mood) {
      case "down":
        request.socket.destroy();
        return;
      case "hanging":
        return;
      case "slow":
        await new Promise((resolve) => setTimeout(resolve, SLOW_MS));
        break;
      case "failing":
        json(response, 500, { error: "x" });
        return;
      case "junk":
        response.writeHead(200, { "Content-Type": "application/json" }).end(randomBytes(200));
        return;
      case "truncated":
        response.writeHead(200, { "Content-Type": "application/json", "Content-Length": "5000" });
        response.write('{"keys":[');
        setTimeout(() => request.socket.destroy(), 20);
        return;
      case "endless": {
        response.writeHead(200, { "Content-Type": "application/json" });
        const timer = setInterval(() => {
          if (response.destroyed) clearInterval(timer);
          else response.write("0".repeat(65_536));
        }, 2);
        return;
      }
      case "dripping": {
        response.writeHead(200, { "Content-Type": "application/json" });
        const timer = setInterval(() => {
          if (response.destroyed) clearInterval(timer);
          else response.write(" ");
        }, 50);
        return;
      }
      case "elsewhere":
        response.writeHead(307, { Location: YES }).end();
        return;
      default:
    }
    if (url === "/.well-known/claw-keys.json") json(response, 200, keys());
    else if (url === "/v1/crl") {
      if (mood === "no-crl") json(response, 404, { code: "CRL_NOT_FOUND" });
      else json(response, 200, { crl: list() });
    } else if (url === "/v1/agents/auth/validate") {
      if (mood === "odd-verdict") {
        json(response, 200, { valid: true });
        return;
      }
      const { agentDid, aitJti } = JSON.parse(body) as { agentDid: string; aitJti: string };
      const known = agents.get(agentDid);
      const isValid = known !== undefined && known.jti === aitJti && known.access === headers["x-claw-agent-access"];
      response.writeHead(isValid ? 204 : 401).end();
    } else response.writeHead(404).end();
  };

  const issue = ({ name, publicKey }: { name: string; publicKey: string }): unknown => {
    const known: Known = {
      agentDid: `did:cdi:${AUTHORITY}:agent:${ulid()}`,
      ownerDid: `did:cdi:${AUTHORITY}:human:${ulid()}`,
      jti: ulid(),
      access: randomBytes(32).toString("base64url"),
      name,
    };
    agents.set(known.agentDid, known);
    const { agentDid, ownerDid, access } = known;
    return {
      agentDid,
      ownerDid,
      tenantId: "faults",
      ait: aitOf(own.privateKey, known, publicKey),
      access: { token: access, expiresAtMs: Date.now() + LIVES_SECONDS * 1_000 },
      refreshToken: "",
    };
  };

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  server.on("connection", (socket) => {
    open.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the registry has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    become: (next) => void (mood = next),
    revoke(agentDid) {
      const known = agents.get(agentDid);
      if (known !== undefined)
        revocations.push({ jti: known.jti, agentDid, revokedAt: Math.floor(Date.now() / 1_000) });
    },
    forgedAit(agentDid, publicX) {
      const known = agents.get(agentDid);
      if (known === undefined) throw new Error("no such agent");
      return aitOf(strangers.privateKey, { ...known, jti: ulid() }, publicX);
    },
    calls: () => calls,
    async stop() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function aitOf(key: KeyObject, { agentDid, ownerDid, jti, name }: Known, x: string): string {
  const now = Math.floor(Date.now() / 1_000);
  const cnf = { jwk: { kty: "OKP", crv: "Ed25519", x } };
  return jws(key, "AIT", {
    iss: REGISTRY_ISSUER,
    sub: agentDid,
    ownerDid,
    name,
    framework: "faults",
    cnf,
    iat: now,
    nbf: now - 1,
    exp: now + LIVES_SECONDS,
    jti,
  });
}

function crlOf(
  key: KeyObject,
  revocations: unknown[],
  iss: string,
  { agedSeconds = 0, typ = "CRL" }: { agedSeconds?: number; typ?: string } = {},
): string {
  const iat = Math.floor(Date.now() / 1_000) - agedSeconds;
  return jws(key, typ, { iss, jti: ulid(), iat, exp: iat + LIVES_SECONDS, revocations });
}

function jws(key: KeyObject, typ: string, claims: unknown): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const input = `${part({ alg: "EdDSA", typ, kid: KID })}.${part(claims)}`;
  return `${input}.${sign(null, Buffer.from(input), key).toString("base64url")}`;
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}
