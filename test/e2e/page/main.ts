/**
 * The script of the tests' web page: uses the library as a web application does, by the name it is published under.
 * What a test asks of it stands on `window.app`.
 */
import {
  type AgentClient,
  type AgentCredential,
  connectByTicket,
  createAgentClient,
  type EnqueueResult,
  exportKeys,
  generateKeys,
  type IncomingMessage,
  type Keys,
  type RelayConnection,
  type RelayEnd,
  type RelayHandlers,
  SallyportError,
  signRequest,
} from "sallyport/client";

/** A request as it would go over the wire. */
export type Signed = { method: string; url: string; headers: [string, string][]; body: string };

const FAST = { backoffInitialMs: 10, backoffMaxMs: 100 };

const messages: IncomingMessage[] = [];
const receipts: string[] = [];
const states: string[] = [];
const violations: string[] = [];
const failure = Promise.withResolvers<string>();
const changes = new EventTarget();

const note = <T>(list: T[], each: T): void => {
  list.push(each);
  changes.dispatchEvent(new Event("change"));
};

document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  note(violations, `${violatedDirective} ${blockedURI}`),
);

const handlers: RelayHandlers = {
  onMessage: (message) => {
    // What the proxy says by itself, e.g. of a pairing, is not what the tests wait for.
    if (message.fromAgentDid !== null) note(messages, message);
  },
  onReceipt: ({ deliveryId, status }) => note(receipts, `${deliveryId} ${status}`),
  onState: (state) => note(states, state),
  onError: (error) => failure.resolve(told(error)),
};

/** The first `count` of a list, as soon as it has so many. */
function first<T>(list: readonly T[], count: number): Promise<readonly T[]> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (list.length >= count) resolve(list.slice(0, count));
    };
    changes.addEventListener("change", look);
    look();
  });
}

const told = (error: unknown): string =>
  error instanceof SallyportError ? `${error.name} ${error.code}: ${error.message}` : String(error);

/** @returns what the work fails with, in words */
const failureOf = (work: Promise<unknown>): Promise<string> => work.then(() => "no failure", told);

/** Where a page keeps keys that it cannot read: in the browser's own database. */
function database(): Promise<IDBDatabase> {
  const opening = indexedDB.open("keys", 1);
  opening.addEventListener("upgradeneeded", () => opening.result.createObjectStore("keys"));
  return resultOf(opening);
}

function resultOf<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error ?? new Error("the database failed")));
  });
}

const store = async (mode: IDBTransactionMode): Promise<IDBObjectStore> =>
  (await database()).transaction("keys", mode).objectStore("keys");

const storedKeys = async (): Promise<Keys> => resultOf<Keys>((await store("readonly")).get("own"));

let agent: AgentClient | null = null;
let relay: RelayConnection | null = null;

const current = <T>(value: T | null): T => {
  if (value === null) throw new Error("the page has not begun yet");
  return value;
};

const app = {
  /** Makes keys that nobody can export, and keeps them over a reload. @returns the public one */
  async makeKeys(): Promise<string> {
    const keys = await generateKeys({ extractable: false });
    await resultOf((await store("readwrite")).put(keys, "own"));
    return keys.publicKey;
  },

  async exportFailure(): Promise<string> {
    return failureOf(exportKeys(await storedKeys()));
  },

  async sign(url: string, init: { method: string; headers: Record<string, string>; body?: string }): Promise<Signed> {
    const signed = await signRequest(new Request(url, init), await storedKeys());
    const { method, headers } = signed;
    return { method, url: signed.url, headers: [...headers], body: await signed.text() };
  },

  /** As a browser is that does not show a request's body to a page. */
  hideRequestBodies(): void {
    Object.defineProperty(Request.prototype, "body", { get: () => undefined });
  },

  /** Begins as the agent itself, with the keys that the page keeps. */
  async beAgent(baseUrl: string, credential: AgentCredential): Promise<void> {
    agent = createAgentClient({ baseUrl, keys: await storedKeys(), credential });
  },
  async confirmPairing(ticket: string): Promise<void> {
    await current(agent).pairing.confirm({ ticket, profile: { agentName: "page", humanName: "Ann" } });
  },
  connect(): void {
    relay = current(agent).connect(handlers, FAST);
  },

  /** Connects by tickets that the page's own backend gives. */
  connectByTicket(baseUrl: string): void {
    const ticket = async (): Promise<string | null> => {
      const answer = await fetch("/ticket", { method: "POST" });
      if (answer.status === 403) return null;
      if (!answer.ok) throw new Error(`the backend answered ${answer.status}`);
      return answer.text();
    };
    relay = connectByTicket({ baseUrl, ticket }, handlers, FAST);
  },

  /** Opens a socket without the library. @returns what came of it */
  openSocket(url: string, ticket: string): Promise<string> {
    const socket = new WebSocket(url, ["sallyport.v1", `sallyport.ticket.${ticket}`]);
    return new Promise((resolve) => {
      socket.addEventListener("open", () => {
        socket.close(1000);
        resolve("open");
      });
      socket.addEventListener("close", ({ code }) => resolve(`closed with ${code}`));
    });
  },

  opened: (): Promise<void> => current(relay).opened(),
  peersFailure: (): Promise<string> => failureOf(current(agent).pairing.peers()),
  enqueue: (to: string, payload: unknown): Promise<EnqueueResult> => current(relay).enqueue({ to, payload }),
  enqueueFailure: (to: string): Promise<string> => failureOf(current(relay).enqueue({ to, payload: 1 })),
  messages: (count: number): Promise<readonly IncomingMessage[]> => first(messages, count),
  receipts: (count: number): Promise<readonly string[]> => first(receipts, count),
  states: (): readonly string[] => states,
  violations: (): readonly string[] => violations,
  /** What the first failed attempt is told with. */
  failure: (): Promise<string> => failure.promise,
  ended: (): Promise<RelayEnd> => current(relay).ended,
};

export type App = typeof app;
declare global {
  interface Window {
    app: App;
  }
}
window.app = app;
