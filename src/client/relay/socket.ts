/**
 * The platform's `WebSocket`, as far as it is used.
 *
 * @example
 * ```ts
 * const relay = agent.connect({ onMessage: () => undefined }, { WebSocket: WebSocket as SocketConstructor });
 * await relay.opened();
 * relay.close();
 * console.log((await relay.ended).why); // closed
 * ```
 */

/** `data` of a message, `code` and `reason` of a close. */
export type SocketEvent = { readonly data?: unknown; readonly code?: number; readonly reason?: string };

/** A socket. */
export type Socket = {
  readonly readyState: number;
  /** The subprotocol that the server has chosen; empty before it opens. */
  readonly protocol?: string | undefined;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "open" | "message" | "close" | "error", listener: (event: SocketEvent) => void): void;
};

/** Makes a socket that begins to open. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

/** `readyState` of an open socket. */
export const SOCKET_OPEN = 1;

/** @returns the platform's own WebSocket. @throws TypeError where there is none */
export function platformSocket(): SocketConstructor {
  const { WebSocket } = globalThis as { WebSocket?: unknown };
  if (typeof WebSocket !== "function")
    throw new TypeError(
      "WebSocket: this platform has none; hand one in as the option `WebSocket` (Node 20: `WebSocket` of the package undici, or openAgent of sallyport/node, which brings it)",
    );
  // The platforms' types differ in their overloads, not in what is used of them here.
  return WebSocket as SocketConstructor;
}
