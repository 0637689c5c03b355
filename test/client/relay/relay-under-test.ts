/** A relay connection over sockets of the test's own. The clock is the test's too: `vi.useFakeTimers()`. */
import { vi } from "vitest";
import { ProblemError, type RelayEnd, type RelayHandlers } from "../../../src/client/index.ts";
import { connectRelay, type RelaySetup } from "../../../src/client/relay/connection.ts";
import { BASE_URL } from "../fake-gate.ts";
import { fakeSockets } from "../fake-socket.ts";

/** Lets everything run that does not wait for time. */
export const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

export async function setUp(handlers: Partial<RelayHandlers> = {}, options: Partial<RelaySetup> = {}) {
  const { WebSocket, sockets } = fakeSockets();
  const states: string[] = [];
  const errors: unknown[] = [];
  let tickets = 0;
  const relay = connectRelay({
    baseUrl: new URL(BASE_URL),
    nowMs: Date.now,
    ticket: () => Promise.resolve(`ticket-${(tickets += 1)}`),
    WebSocket,
    random: () => 0,
    handlers: {
      onMessage: () => undefined,
      onState: (state) => void states.push(state),
      onError: (error) => void errors.push(error),
      ...handlers,
    },
    ...options,
  });
  let end: RelayEnd | null = null;
  void relay.ended.then((reason) => (end = reason));
  await settle();
  const socket = (index = sockets.length - 1) => {
    const found = sockets.at(index);
    if (found === undefined) throw new Error("no socket was opened");
    return found;
  };
  const open = async (protocol?: string) => {
    socket().open(protocol);
    await settle();
    // What every socket begins with is looked at in a test of its own.
    socket().sent.shift();
    return socket();
  };
  return { relay, sockets, socket, open, states, errors, end: () => end };
}

export const problemError = (status: number, code: string): ProblemError =>
  new ProblemError({ code, detail: code, status, requestId: null, retryAfterMs: null });
