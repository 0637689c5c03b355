/** Sockets of the test's own: the test is the server, and decides when they open, what comes in, and how they end. */
import type { Socket, SocketConstructor, SocketEvent } from "../../src/client/index.ts";
import { frameHead, deliverFrame } from "../../src/wire/frame-encoder.ts";
import { parseAgentDid, type AgentDid } from "../../src/wire/did.ts";
import { AGENT_DID, PEER_DID } from "./fake-gate.ts";

export type FakeSocket = Socket & {
  readonly url: string;
  readonly protocols: readonly string[];
  /** Frames that the client has sent, parsed. */
  readonly sent: Record<string, unknown>[];
  readonly closedByClient: boolean;
  /** @param protocol that the server has chosen; the ticket's by default */
  open(protocol?: string): void;
  push(text: string): void;
  end(code: number, reason?: string): void;
};

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;

/** @returns a constructor for the client, and the sockets that it has made, oldest first */
export function fakeSockets(): { WebSocket: SocketConstructor; sockets: FakeSocket[] } {
  const sockets: FakeSocket[] = [];
  const make = function WebSocket(url: string, protocols: string[]): FakeSocket {
    const listeners = new Map<string, ((event: SocketEvent) => void)[]>();
    const emit = (type: string, event: SocketEvent): void =>
      listeners.get(type)?.forEach((listener) => listener(event));
    let readyState = CONNECTING;
    let closedByClient = false;
    let chosen = "";
    const sent: Record<string, unknown>[] = [];
    const socket: FakeSocket = {
      url,
      protocols,
      sent,
      get readyState() {
        return readyState;
      },
      get closedByClient() {
        return closedByClient;
      },
      send(text) {
        if (readyState !== OPEN) throw new Error("the socket is not open");
        sent.push(JSON.parse(text) as Record<string, unknown>);
      },
      // The peer answers no close frame unless the test says so.
      close() {
        closedByClient = true;
      },
      addEventListener(type, listener) {
        listeners.set(type, [...(listeners.get(type) ?? []), listener]);
      },
      get protocol() {
        return chosen;
      },
      open(protocol = protocols[0] ?? "") {
        readyState = OPEN;
        chosen = protocol;
        emit("open", {});
      },
      push(data) {
        emit("message", { data });
      },
      end(code, reason = "") {
        readyState = CLOSED;
        emit("close", { code, reason });
      },
    };
    sockets.push(socket);
    return socket;
  };
  // A function that returns an object constructs that object.
  return { WebSocket: make as unknown as SocketConstructor, sockets };
}

const did = (text: string): AgentDid => {
  const parsed = parseAgentDid(text);
  if (parsed === null) throw new Error("no agent DID");
  return parsed;
};

/** @returns the text of a `deliver` frame, each with a frame id of its own */
export function delivery(deliveryId: string, payload: unknown, from: string = PEER_DID): string {
  const payloadText = JSON.stringify(payload);
  return deliverFrame(frameHead(Date.now()), {
    deliveryId,
    fromAgentDid: did(from),
    toAgentDid: did(AGENT_DID),
    payloadText,
  });
}
