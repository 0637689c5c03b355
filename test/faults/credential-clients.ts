/** What the holders of a credential do with it: prove their key, call from somewhere, and write on a socket. */
import type { KeyObject } from "node:crypto";
import type { Agent } from "../support/program/agents.ts";
import { proofHeaders } from "../support/signing.ts";
import { type Letter, letterTo, recordLetter } from "./socket-senders.ts";
import type { Run } from "./participants.ts";

let addresses = 0;
/** An address of its own for each attempt, so that guessing is not what is refused. */
export const freshAddress = (): Record<string, string> => {
  addresses += 1;
  return { "CF-Connecting-IP": `10.${(addresses >> 16) & 255}.${(addresses >> 8) & 255}.${addresses & 255}` };
};

/**
 * A socket that enqueues without pause. An acknowledgement of a frame that was written after the end is an effect after it,
 * and so is the message itself, whatever was said of it.
 */
export async function chatter(
  run: Run,
  from: Agent,
  ticket: string,
  to: string,
  authority: string,
): Promise<{ stop(): void } | null> {
  const socket = new WebSocket(`${run.program.url.replace("http", "ws")}/relay/connect`, [
    "sallyport.v1",
    `sallyport.ticket.${ticket}`,
  ]);
  const opened = await new Promise<boolean>((resolve) => {
    socket.addEventListener("open", () => resolve(true));
    socket.addEventListener("error", () => resolve(false));
    socket.addEventListener("close", () => resolve(false));
  });
  if (!opened) return null;
  const written = new Map<string, Letter>();
  const timer = setInterval(() => {
    // Also while it is closing: the server may still read.
    if (socket.readyState !== WebSocket.OPEN) return;
    const letter = letterTo(from, to);
    written.set(letter.id, letter);
    socket.send(letter.text);
  }, 8);
  socket.addEventListener("message", ({ data }) => {
    const frame = JSON.parse(String(data)) as { type: string; ackId: string; accepted: boolean; deliveryId: string };
    const letter = frame.type === "enqueue_ack" ? written.get(frame.ackId) : undefined;
    if (letter === undefined) return;
    written.delete(letter.id);
    recordLetter(run, from, letter, frame, authority);
    run.history.record({
      kind: "used",
      begunAtMs: letter.begunAtMs,
      atMs: performance.now(),
      authority,
      via: "frame",
      accepted: frame.accepted,
      boot: run.program.boots(),
    });
  });
  // What was acknowledged while the socket was closing is heard; the rest nobody knows.
  socket.addEventListener("close", () => {
    for (const letter of written.values()) recordLetter(run, from, letter, null, authority);
    written.clear();
  });
  return {
    stop() {
      clearInterval(timer);
      socket.close();
    },
  };
}

/** @returns the headers of a POST that is proven by a device's key */
export function proofOf(privateKey: KeyObject, path: string, body: string): Record<string, string> {
  return { "Content-Type": "application/json", ...proofHeaders(privateKey, { method: "POST", path, body }) };
}
