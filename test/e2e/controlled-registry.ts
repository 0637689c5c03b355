/** A registry of the test's own, over HTTP: it signs whatever it is told to, serves whatever it is told to, and counts its callers. */
import { createServer } from "node:http";
import { createHmac, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import type { AddressInfo } from "node:net";
import { type Agent, b64url, newKey } from "../support/program/agents.ts";

export const ISSUER = "https://registry.test.example";
const AUTHORITY = "registry.test.example";
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

export type RegistryKey = { kid: string; privateKey: KeyObject; entry: Record<string, unknown> };
export type Claims = Record<string, unknown>;

export type ControlledRegistry = {
  url: string;
  calls: { keys: number; crl: number; access: number };
  /** The key that is active from the start. */
  key: RegistryKey;
  newKey(kid: string): RegistryKey;
  /** What `/.well-known/claw-keys.json` answers from now on. */
  serveKeys(document: string, contentType?: string): void;
  /** An agent with an identity token of this registry. */
  agent(): Agent;
  /** An identity token for a key, with claims and header as told. */
  ait(agent: Agent, over?: Claims, how?: { key?: RegistryKey; header?: Claims }): string;
  stop(): Promise<void>;
};

export const keysDocument = (...entries: unknown[]): string => JSON.stringify({ keys: entries });

export function newUlid(): string {
  return Array.from(randomBytes(26), (byte, index) => (index === 0 ? "0" : ALPHABET.charAt(byte % 32))).join("");
}

export function signJws(header: Claims, claims: Claims, privateKey: KeyObject): string {
  const input = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  if (header["alg"] === "none") return `${input}.`;
  if (header["alg"] === "HS256") return `${input}.${createHmac("sha256", "public").update(input).digest("base64url")}`;
  return `${input}.${sign(null, Buffer.from(input), privateKey).toString("base64url")}`;
}

const nowSeconds = (): number => Math.floor(Date.now() / 1_000);

function newRegistryKey(kid: string): RegistryKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const x = publicKey.export({ format: "jwk" }).x ?? "";
  return { kid, privateKey, entry: { kid, alg: "EdDSA", crv: "Ed25519", x, status: "active" } };
}

export async function startControlledRegistry(): Promise<ControlledRegistry> {
  const key = newRegistryKey("kid-1");
  const calls = { keys: 0, crl: 0, access: 0 };
  let served = { body: keysDocument(key.entry), contentType: "application/json" };
  const crl = (): string => {
    const iat = nowSeconds();
    return signJws(
      { alg: "EdDSA", typ: "CRL", kid: key.kid },
      { iss: ISSUER, jti: newUlid(), iat, exp: iat + 86_400, revocations: [] },
      key.privateKey,
    );
  };

  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => {
      if (request.url === "/.well-known/claw-keys.json") {
        calls.keys += 1;
        response.writeHead(200, { "Content-Type": served.contentType }).end(served.body);
      } else if (request.url === "/v1/crl") {
        calls.crl += 1;
        response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ crl: crl() }));
      } else {
        calls.access += 1;
        const isKnown = request.headers["x-claw-agent-access"]?.toString().startsWith("good-") === true;
        response.writeHead(isKnown ? 204 : 401).end();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

  const registry: ControlledRegistry = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    key,
    newKey: newRegistryKey,
    serveKeys(body, contentType = "application/json") {
      served = { body, contentType };
    },
    agent() {
      const { privateKey, x } = newKey();
      const agent: Agent = {
        did: `did:cdi:${AUTHORITY}:agent:${newUlid()}`,
        ownerDid: `did:cdi:${AUTHORITY}:human:${newUlid()}`,
        ait: "",
        accessToken: `good-${b64url(randomBytes(16))}`,
        refreshToken: "",
        privateKey,
        publicX: x,
      };
      return { ...agent, ait: registry.ait(agent) };
    },
    ait(agent, over = {}, { key: by = key, header = {} } = {}) {
      const now = nowSeconds();
      const claims = {
        iss: ISSUER,
        sub: agent.did,
        ownerDid: agent.ownerDid,
        name: "agent",
        framework: "test",
        cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: agent.publicX } },
        iat: now - 10,
        nbf: now - 10,
        exp: now + 3_600,
        jti: newUlid(),
        ...over,
      };
      return signJws({ alg: "EdDSA", typ: "AIT", kid: by.kid, ...header }, claims, by.privateKey);
    },
    stop: () => new Promise((resolve) => (server.closeAllConnections(), server.close(() => resolve()))),
  };
  return registry;
}
