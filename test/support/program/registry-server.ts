/**
 * A registry of the tests' own: a real HTTP server with a key of its own. It issues agents, publishes keys and a revocation
 * list, judges access tokens, counts who asks, and fails as it is told (`registry-faults.ts`).
 */
import { createHmac, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { text } from "node:stream/consumers";
import { type Agent, newKey } from "./agents.ts";
import { ulid } from "./relay-client.ts";

const AUTHORITY = "registry.sallyport.example";
/** The issuer of everything that it signs, which is the program's default. */
export const REGISTRY_ISSUER = `https://${AUTHORITY}`;
const KID = "kid-1";
/** A path that answers yes to whatever is asked. Nobody asks there unless they were sent. */
export const ALWAYS_YES = "/always/yes";
const LIVES_SECONDS = 86_400;

export type Document = "keys" | "crl" | "access";
export const DOCUMENTS: readonly Document[] = ["keys", "crl", "access"];

export type Claims = Record<string, unknown>;
export type RegistryKey = { kid: string; privateKey: KeyObject; entry: Record<string, unknown> };
export type RightAnswer = { status: number; body: string; contentType?: string };

/** One call of the program. `right` is what a registry in order answers; `later` is forgotten when the registry goes down. */
export type Exchange = {
  readonly document: Document;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly right: RightAnswer;
  later(work: () => void, ms: number): void;
};
/** Answers a call in its own way, or never. */
export type Fault = (exchange: Exchange) => void;

export type RegistryServer = {
  readonly url: string;
  /** The key that is active from the start. */
  readonly key: RegistryKey;
  /** Calls since {@link forgetCalls}, how many there were at a time, and how many ended before they were answered in full. */
  readonly calls: Record<Document, number>;
  readonly mostInFlight: Record<Document, number>;
  readonly abandoned: Record<Document, number>;
  forgetCalls(): void;
  /** How the documents are answered from now on; null: rightly. */
  fail(fault: Fault | null, documents?: readonly Document[]): void;
  /** What is the right answer for a document from now on. */
  serve(document: Document, answer: RightAnswer): void;
  newKey(kid: string): RegistryKey;
  /** A signed revocation list of what has been revoked, or of something else. */
  list(over?: { key?: RegistryKey; header?: Claims; claims?: Claims }): string;
  /** Into the list, from the next one on. */
  revoke(agentDid: string): void;
  /** An agent with keys of its own and an identity token of this registry. */
  issue(): Agent;
  /** An identity token for an agent, with claims and header as told. */
  ait(
    agent: Pick<Agent, "did" | "ownerDid" | "publicX">,
    over?: Claims,
    how?: { key?: RegistryKey; header?: Claims },
  ): string;
  /** Nothing listens any more, and what was connected is cut. */
  down(): Promise<void>;
  /** Listens again on the same port. */
  up(): Promise<void>;
};

type Issued = { access: string; jti: string };

export const keysDocument = (...entries: unknown[]): string => JSON.stringify({ keys: entries });

/** @returns a compact JWS, signed by the key; `alg` none and HS256 as attackers would have them */
export function signJws(header: Claims, claims: Claims, privateKey: KeyObject): string {
  const input = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  if (header["alg"] === "none") return `${input}.`;
  if (header["alg"] === "HS256") return `${input}.${createHmac("sha256", "public").update(input).digest("base64url")}`;
  return `${input}.${sign(null, Buffer.from(input), privateKey).toString("base64url")}`;
}

/** Starts it on a free port. */
export async function startRegistry(): Promise<RegistryServer> {
  const key = newRegistryKey(KID);
  const issued = new Map<string, Issued>();
  const revocations: { jti: string; agentDid: string; revokedAt: number }[] = [];
  const faults: Partial<Record<Document, Fault>> = {};
  const served: Partial<Record<Document, RightAnswer>> = { keys: { status: 200, body: keysDocument(key.entry) } };
  const [calls, inFlight, mostInFlight, abandoned] = [none(), none(), none(), none()];

  const list: RegistryServer["list"] = ({ key: by = key, header = {}, claims = {} } = {}) => {
    const iat = nowSeconds();
    const own = { iss: REGISTRY_ISSUER, jti: ulid(), iat, exp: iat + LIVES_SECONDS, revocations };
    return signJws({ alg: "EdDSA", typ: "CRL", kid: by.kid, ...header }, { ...own, ...claims }, by.privateKey);
  };
  const ait: RegistryServer["ait"] = (agent, over = {}, { key: by = key, header = {} } = {}) =>
    signJws({ alg: "EdDSA", typ: "AIT", kid: by.kid, ...header }, { ...claimsOf(agent), ...over }, by.privateKey);
  const rightAnswer = (document: Document, { headers }: IncomingMessage, body: string): RightAnswer => {
    const own = served[document];
    if (own !== undefined) return own;
    if (document === "crl") return { status: 200, body: JSON.stringify({ crl: list() }) };
    const { agentDid } = JSON.parse(body) as { agentDid: string };
    const isKnown = issued.get(agentDid)?.access === headers["x-claw-agent-access"];
    return { status: isKnown ? 204 : 401, body: "" };
  };
  /** For an agent with a key of its own. */
  const admit = (name: string, publicX: string): { agent: Omit<Agent, "privateKey">; jti: string } => {
    const own = { did: didOf("agent"), ownerDid: didOf("human"), publicX };
    const [accessToken, jti] = [`spa_${randomBytes(24).toString("base64url")}`, ulid()];
    issued.set(own.did, { access: accessToken, jti });
    return { agent: { ...own, ait: ait(own, { jti, name }), accessToken, refreshToken: "" }, jti };
  };

  const lines = createLines();
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { method, url: path = "" } = request;
    const body = await text(request);
    // The tests' own entrance, open whatever fails.
    if (method === "POST" && path === "/v1/agents") {
      const { name, publicKey } = JSON.parse(body) as { name: string; publicKey: string };
      reply(response, { status: 201, body: JSON.stringify(asIssued(admit(name, publicKey).agent)) });
      return;
    }
    const document = documentAt(path);
    if (document === null) {
      reply(response, { status: path === ALWAYS_YES ? 204 : 404, body: "" });
      return;
    }
    calls[document] += 1;
    inFlight[document] += 1;
    mostInFlight[document] = Math.max(mostInFlight[document], inFlight[document]);
    response.on("close", () => {
      inFlight[document] -= 1;
      if (!response.writableFinished) abandoned[document] += 1;
    });
    const right = rightAnswer(document, request, body);
    const fault = faults[document];
    if (fault === undefined) reply(response, right);
    else fault({ document, request, response, right, later: lines.later });
  };
  await lines.listen(serve);

  return {
    url: lines.url(),
    key,
    calls,
    mostInFlight,
    abandoned,
    forgetCalls() {
      for (const counts of [calls, mostInFlight, abandoned]) Object.assign(counts, none());
    },
    fail(fault, documents = DOCUMENTS) {
      for (const document of documents) {
        if (fault === null) delete faults[document];
        else faults[document] = fault;
      }
    },
    serve: (document, answer) => void (served[document] = answer),
    newKey: newRegistryKey,
    list,
    revoke(agentDid) {
      const known = issued.get(agentDid);
      if (known !== undefined) revocations.push({ jti: known.jti, agentDid, revokedAt: nowSeconds() });
    },
    issue() {
      const { privateKey, x } = newKey();
      return { ...admit("tester", x).agent, privateKey };
    },
    ait,
    down: lines.down,
    up: () => lines.listen(serve),
  };
}

/** Answers rightly, or with what is given in its place. */
export function reply(response: ServerResponse, { status, body, contentType = "application/json" }: RightAnswer): void {
  response.writeHead(status, body === "" ? {} : { "Content-Type": contentType }).end(body);
}

/** The connections of a server that goes down and comes up again on its port. */
function createLines() {
  const sockets = new Set<Socket>();
  const timers = new Set<NodeJS.Timeout>();
  let server: Server | null = null;
  let port = 0;
  return {
    url: () => `http://127.0.0.1:${port}`,
    later(work: () => void, ms: number): void {
      const timer = setTimeout(() => {
        timers.delete(timer);
        work();
      }, ms);
      timers.add(timer);
    },
    async listen(serve: (request: IncomingMessage, response: ServerResponse) => Promise<void>): Promise<void> {
      const listening = createServer((request, response) => {
        serve(request, response).catch((error: unknown) =>
          response.destroy(error instanceof Error ? error : undefined),
        );
      });
      listening.on("connection", (socket) => {
        sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => sockets.delete(socket));
      });
      await new Promise<void>((resolve, reject) => {
        listening.on("error", reject);
        listening.listen(port, "127.0.0.1", resolve);
      });
      port = (listening.address() as AddressInfo).port;
      server = listening;
    },
    async down(): Promise<void> {
      const listening = server;
      server = null;
      if (listening === null) return;
      const closed = new Promise((resolve) => listening.close(resolve));
      for (const socket of sockets) socket.destroy();
      for (const timer of timers) clearTimeout(timer);
      await closed;
    },
  };
}

const none = (): Record<Document, number> => ({ keys: 0, crl: 0, access: 0 });
const nowSeconds = (): number => Math.floor(Date.now() / 1_000);
const didOf = (kind: "agent" | "human"): string => `did:cdi:${AUTHORITY}:${kind}:${ulid()}`;

function documentAt(path: string): Document | null {
  if (path === "/.well-known/claw-keys.json") return "keys";
  if (path === "/v1/crl") return "crl";
  return path === "/v1/agents/auth/validate" ? "access" : null;
}

function newRegistryKey(kid: string): RegistryKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const x = publicKey.export({ format: "jwk" }).x ?? "";
  return { kid, privateKey, entry: { kid, alg: "EdDSA", crv: "Ed25519", x, status: "active" } };
}

function claimsOf({ did, ownerDid, publicX }: Pick<Agent, "did" | "ownerDid" | "publicX">): Claims {
  const now = nowSeconds();
  const cnf = { jwk: { kty: "OKP", crv: "Ed25519", x: publicX } };
  const times = { iat: now - 10, nbf: now - 10, exp: now + LIVES_SECONDS };
  return { iss: REGISTRY_ISSUER, sub: did, ownerDid, name: "agent", framework: "test", cnf, ...times, jti: ulid() };
}

/** The answer of `POST /v1/agents`, contract §3. */
function asIssued({ did, ownerDid, ait, accessToken }: Omit<Agent, "privateKey">): Claims {
  const access = { token: accessToken, expiresAtMs: Date.now() + LIVES_SECONDS * 1_000 };
  return { agentDid: did, ownerDid, tenantId: "tests", ait, access, refreshToken: "" };
}
