/** The relay sockets of one agent. What must outlive hibernation is in each socket's attachment; the rest is counted anew. */
import { AGENT_HOLDER, type Holder, holderOf } from "../../authority/holder.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Scope } from "../../authority/scopes.ts";
import { newUlid } from "../../wire/ulid.ts";
import { GateRefusal } from "../protocol/refusal.ts";
import type { Dialect } from "./dialect.ts";

/** Contract §4: of one agent, and of each device and secret. */
export const SOCKETS_MAX = 512;
export const SOCKETS_PER_HOLDER_MAX = 32;
/** Kept for the agent's own credential, whose newer socket supersedes the older. */
const SOCKETS_OF_AGENT = 1;

/** At most 16 KiB; read back when the gate wakes. */
type Attachment = {
  socketId: string;
  authority: AuthorityRef;
  scopes: readonly Scope[];
  /** The address it was opened from, for the audit; null where there is none. */
  origin: string | null;
  malformed: number;
  eventSeq: number;
  /** Missing in sockets that an earlier version has opened, which spoke to all of them in one way. */
  dialect?: Dialect;
};

export type Session = Omit<Attachment, "dialect"> & {
  /** How its client wants to be spoken to. */
  readonly dialect: Dialect;
  socket: WebSocket;
  /** Whose credential opened it. */
  holder: Holder;
  /** When the client last acknowledged something, and when any frame came from it; 0 for not since the gate woke. */
  lastProgressMs: number;
  lastFrameMs: number;
};

/** The sockets of one agent that are open. */
export type Sockets = {
  size(): number;
  all(): Session[];
  of(socket: WebSocket): Session | null;
  byId(socketId: string): Session | null;
  /** Writes a session's attachment, which outlives hibernation. */
  save(session: Session): void;
  /** Forgets a session whose socket is gone. */
  remove(session: Session): void;
  /**
   * Takes a socket in; hibernation keeps it open while the gate sleeps.
   *
   * @returns those whose place it takes as well: chosen now, since the next may come before this one is on disk
   * @throws GateRefusal when there are too many
   */
  accept(
    socket: WebSocket,
    opened: Pick<Session, "authority" | "scopes" | "origin" | "dialect">,
    nowMs: number,
  ): { session: Session; superseded: Session[] };
  /** Ends a socket. One that cannot be closed is not ours any more either: its session is gone before `close` is tried. */
  close(session: Session, code: number, reason: string): void;
  /** Sends a frame; false when the socket has gone meanwhile. */
  send(session: Session, text: string): boolean;
};

/** @returns the sockets of one gate; those that survived hibernation among them. */
export function createSockets(
  ctx: Pick<DurableObjectState, "acceptWebSocket" | "getWebSockets">,
  onCloseFailed: (error: unknown) => void,
): Sockets {
  const bySocket = new Map<WebSocket, Session>();
  const byId = new Map<string, Session>();

  const add = (socket: WebSocket, attachment: Attachment): Session => {
    const holder = holderOf(attachment.authority.principal);
    const dialect = attachment.dialect ?? "v1";
    const session: Session = { ...attachment, dialect, socket, holder, lastProgressMs: 0, lastFrameMs: 0 };
    bySocket.set(socket, session);
    byId.set(session.socketId, session);
    return session;
  };

  const save = ({ socket, socketId, authority, scopes, origin, malformed, eventSeq, dialect }: Session): void => {
    const attachment: Attachment = { socketId, authority, scopes, origin, malformed, eventSeq, dialect };
    socket.serializeAttachment(attachment);
  };

  const remove = (session: Session): void => {
    bySocket.delete(session.socket);
    byId.delete(session.socketId);
  };

  /** Sockets that one of the agent's own credential takes the place of; devices never supersede. */
  const supersededBy = (authority: AuthorityRef): Session[] =>
    authority.kind === "agent" ? [...byId.values()].filter((session) => session.authority.kind === "agent") : [];

  const hasRoomFor = (holder: Holder, superseded: number): boolean => {
    if (holder === AGENT_HOLDER) return byId.size - superseded < SOCKETS_MAX;
    let own = 0;
    let others = 0;
    for (const session of byId.values()) {
      if (session.holder === holder) own += 1;
      if (session.holder !== AGENT_HOLDER) others += 1;
    }
    return own < SOCKETS_PER_HOLDER_MAX && others < SOCKETS_MAX - SOCKETS_OF_AGENT;
  };

  for (const socket of ctx.getWebSockets()) {
    const attachment = socket.deserializeAttachment() as Attachment | null;
    if (attachment !== null && socket.readyState === WebSocket.OPEN) add(socket, attachment);
  }

  return {
    size: () => byId.size,
    all: () => [...byId.values()],
    of: (socket) => bySocket.get(socket) ?? null,
    byId: (socketId) => byId.get(socketId) ?? null,
    save,
    remove,

    accept(socket, opened, nowMs) {
      const superseded = supersededBy(opened.authority);
      if (!hasRoomFor(holderOf(opened.authority.principal), superseded.length))
        throw new GateRefusal("gate-sockets-exhausted", 1_000);
      ctx.acceptWebSocket(socket);
      const session = add(socket, { socketId: newUlid(nowMs), ...opened, malformed: 0, eventSeq: 0 });
      save(session);
      return { session, superseded };
    },

    close(session, code, reason) {
      remove(session);
      try {
        // First: one that stays open all the same is nobody's after the gate has slept.
        session.socket.serializeAttachment(null);
        session.socket.close(code, reason);
      } catch (error) {
        onCloseFailed(error);
      }
    },

    send(session, text) {
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
