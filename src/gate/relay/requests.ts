/** `req` frames: calls over the socket, each answered by a `res` frame. Contract §4 and §5. */
import type { AuthorityRef } from "../../authority/reference.ts";
import { type Reply, type WrittenReply, writtenReply } from "../../call/reply.ts";
import { resFrame } from "../../wire/frame-encoder.ts";
import type { ReqFrame } from "../../wire/frames.ts";
import { isRetryable, ProxyError } from "../../wire/problem.ts";
import type { Connections } from "./connection.ts";
import type { Session } from "./sockets.ts";

const OVERLOADED_RETRY_MS = 1_000;

/** Runs one call under an authority, which the call may end itself. */
export type RequestHandler = (session: Session, authority: AuthorityRef, frame: ReqFrame) => Promise<Reply>;

export type Requests = {
  /** Says who runs the calls; set once, while the gate is put together. */
  onRequest(handler: RequestHandler): void;
  /** Runs a call and answers it. */
  run(session: Session, frame: ReqFrame): Promise<void>;
  /** Answers that the call was not made and may be made again. */
  refuse(session: Session, frameId: string | number, error: ProxyError): void;
};

export type RequestsDeps = {
  connections: Pick<Connections, "send">;
};

/** @returns what one gate does with `req` frames. */
export function createRequests({ connections }: RequestsDeps): Requests {
  let handle: RequestHandler | null = null;

  const refuse: Requests["refuse"] = (session, frameId, { code, message, retryAfterMs }) => {
    const reply = { ok: false as const, code, message, retryAfterMs: retryAfterMs ?? OVERLOADED_RETRY_MS };
    connections.send(session, responseFrame(JSON.stringify(frameId), reply));
  };

  return {
    onRequest(handler) {
      handle = handler;
    },
    async run(session, frame) {
      if (handle === null) throw new Error("nothing runs requests yet");
      // The call's own copy: one that ends itself moves on, while the socket stays with what it was opened under.
      const authority = { ...session.authority };
      const reply = await handle(session, authority, frame);
      connections.send(session, responseFrame(frame.idText, writtenReply(reply)), authority);
    },
    refuse,
  };
}

function responseFrame(idText: string, reply: WrittenReply): string {
  if (reply.ok) return resFrame({ idText, ok: true, payloadText: reply.resultText });
  const { code, message, retryAfterMs, data } = reply;
  return resFrame({
    idText,
    ok: false,
    error: {
      code: reply.unknownMethod === true ? "METHOD_NOT_FOUND" : code,
      message,
      ...(data === undefined ? {} : { details: data }),
      retryable: isRetryable(code),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  });
}
