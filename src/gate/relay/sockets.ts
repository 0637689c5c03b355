/** The relay sockets of one agent. What must outlive hibernation is in each socket's attachment; the rest is counted anew. */
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Scope } from "../../authority/scopes.ts";
import { RELAY_CLOSE, RELAY_CLOSE_REASON } from "../../wire/relay-close.ts";
import { newUlid } from "../../wire/ulid.ts";
import { GateRefusal } from "../protocol/refusal.ts";

/** Contract §4. */
const SOCKETS_MAX = 512;

/** At most 16 KiB; read back when the gate wakes. */
type Attachment = {
  socketId: string;
  authority: AuthorityRef;
  scopes: readonly Scope[];
  /** Whence it was opened, for the audit; null where nobody knows. */
  origin: string | null;
  malformed: number;
  eventSeq: number;
};

export type Session = Attachment & { socket: WebSocket; lastProgressMs: number };

export type Sockets = ReturnType<typeof createSockets>;

export function createSockets(ctx: DurableObjectState, onCloseFailed: (error: unknown) => void) {
  const bySocket = new Map<WebSocket, Session>();
  const byId = new Map<string, Session>();

  const add = (socket: WebSocket, attachment: Attachment): Session => {
    const session: Session = { ...attachment, socket, lastProgressMs: 0 };
    bySocket.set(socket, session);
    byId.set(session.socketId, session);
    return session;
  };

  const save = ({ socket, socketId, authority, scopes, origin, malformed, eventSeq }: Session): void => {
    const attachment: Attachment = { socketId, authority, scopes, origin, malformed, eventSeq };
    socket.serializeAttachment(attachment);
  };

  const remove = (session: Session): void => {
    bySocket.delete(session.socket);
    byId.delete(session.socketId);
  };

  /** Sockets that one of the agent's own credential takes the place of; devices never supersede. */
  const supersededBy = (authority: AuthorityRef): Session[] =>
    authority.kind === "agent" ? [...byId.values()].filter((session) => session.authority.kind === "agent") : [];

  for (const socket of ctx.getWebSockets()) {
    const attachment = socket.deserializeAttachment() as Attachment | null;
    if (attachment !== null && socket.readyState === WebSocket.OPEN) add(socket, attachment);
  }

  return {
    size: (): number => byId.size,
    all: (): Session[] => [...byId.values()],
    of: (socket: WebSocket): Session | null => bySocket.get(socket) ?? null,
    byId: (socketId: string): Session | null => byId.get(socketId) ?? null,
    save,
    remove,

    /**
     * Takes a socket in; hibernation keeps it open while the gate sleeps.
     *
     * @returns those whose place it takes as well: chosen now, since the next may come before this one is on disk
     * @throws GateRefusal when there are too many
     */
    accept(
      socket: WebSocket,
      opened: Pick<Attachment, "authority" | "scopes" | "origin">,
      nowMs: number,
    ): { session: Session; superseded: Session[] } {
      const superseded = supersededBy(opened.authority);
      if (byId.size - superseded.length >= SOCKETS_MAX) throw new GateRefusal("gate-sockets-exhausted", 1_000);
      ctx.acceptWebSocket(socket);
      const session = add(socket, { socketId: newUlid(nowMs), ...opened, malformed: 0, eventSeq: 0 });
      save(session);
      return { session, superseded };
    },

    /** Ends a socket. One that cannot be closed is not ours any more either: its session is gone before `close` is tried. */
    close(session: Session, code: number, reason: string): void {
      remove(session);
      try {
        // First: one that stays open all the same is nobody's after the gate has slept.
        session.socket.serializeAttachment(null);
        session.socket.close(code, reason);
      } catch (error) {
        onCloseFailed(error);
      }
    },

    /** Sends a frame; false when the socket has gone meanwhile. */
    send(session: Session, text: string): boolean {
      if (session.socket.readyState !== WebSocket.OPEN) return false;
      try {
        session.socket.send(text);
        return true;
      } catch (error) {
        onCloseFailed(error);
        return false;
      }
    },
  };
}

export const SUPERSEDED = { code: RELAY_CLOSE.normal, reason: RELAY_CLOSE_REASON.superseded } as const;
