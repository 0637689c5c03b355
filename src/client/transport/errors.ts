/**
 * What can go wrong, one class a kind; every error has a stable `code`. No message holds a token, a key or a body.
 *
 * @example
 * ```ts
 * try {
 *   await agent.send({ to: strangerDid, payload: { text: "hello" } });
 * } catch (error) {
 *   if (error instanceof ProblemError && error.code === "PROXY_AUTH_FORBIDDEN") console.log("pair first"); // pair first
 *   else throw error;
 * }
 * ```
 */

/** Everything that this library throws on purpose, but for {@link InvalidArgumentError}. */
export class SallyportError extends Error {
  override readonly name: string = "SallyportError";
  /** Stable; branch on this and not on the message. */
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** The server refused; `code` is the problem's own (`PROXY_…`, see docs/protocol.md). */
export class ProblemError extends SallyportError {
  override readonly name = "ProblemError";
  readonly status: number;
  /** Finds the request in the server's log. */
  readonly requestId: string | null;
  /** How long to wait before the next attempt, where the server said so. */
  readonly retryAfterMs: number | null;

  constructor(problem: {
    code: string;
    detail: string;
    status: number;
    requestId: string | null;
    retryAfterMs: number | null;
  }) {
    super(problem.code, problem.detail);
    this.status = problem.status;
    this.requestId = problem.requestId;
    this.retryAfterMs = problem.retryAfterMs;
  }
}

/** No answer: `UNREACHABLE`, or `TIMEOUT` when it took too long. The request may have had its effect. */
export class UnreachableError extends SallyportError {
  override readonly name = "UnreachableError";
}

/** An answer that no Sallyport gives (`UNEXPECTED_ANSWER`): most likely the base URL is of something else. */
export class UnexpectedAnswerError extends SallyportError {
  override readonly name = "UnexpectedAnswerError";
  readonly status: number | null;
  /** The answer's JSON, where it was some. */
  readonly json: unknown;

  constructor(message: string, status: number | null, options: { cause?: unknown; json?: unknown } = {}) {
    super("UNEXPECTED_ANSWER", message, options);
    this.status = status;
    this.json = options.json;
  }
}

/** The identity token has expired and cannot be renewed (`CREDENTIAL_EXPIRED`): the operator must re-key the agent. */
export class CredentialExpiredError extends SallyportError {
  override readonly name = "CredentialExpiredError";

  constructor(message: string) {
    super("CREDENTIAL_EXPIRED", message);
  }
}

/**
 * The identity token does not hold yet (`CREDENTIAL_NOT_YET_VALID`), or was issued so recently that the server does not know
 * its signing key: the same call succeeds later.
 */
export class CredentialNotYetValidError extends SallyportError {
  override readonly name = "CredentialNotYetValidError";
  /** How long to wait before the next attempt, in milliseconds. */
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number, options?: { cause?: unknown }) {
    super("CREDENTIAL_NOT_YET_VALID", "the identity token does not hold yet by the server's clock", options);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The server's clock is too far ahead of the own to be believed (`CLOCK_NOT_TRUSTED`): set the own, or trust the server's. */
export class ClockNotTrustedError extends SallyportError {
  override readonly name = "ClockNotTrustedError";
  /** Milliseconds that the server's clock is ahead. */
  readonly offsetMs: number;

  constructor(offsetMs: number) {
    const minutes = Math.round(offsetMs / 60_000);
    super("CLOCK_NOT_TRUSTED", `the server's clock is ${minutes} minutes ahead of this one; nothing is signed by it`);
    this.offsetMs = offsetMs;
  }
}

/** An argument that cannot be sent as it is (`INVALID_ARGUMENT`): nothing was sent. */
export class InvalidArgumentError extends TypeError {
  override readonly name = "InvalidArgumentError";
  readonly code = "INVALID_ARGUMENT";
  /** Which one, as the library names it, e.g. `conversationId`. */
  readonly argument: string;

  /** @param problem what is wrong with it; never its value */
  constructor(argument: string, problem: string, options?: { cause?: unknown }) {
    super(`${argument}: ${problem}`, options);
    this.argument = argument;
  }
}

/** A key that is none (`INVALID_KEY`). */
export class InvalidKeyError extends SallyportError {
  override readonly name = "InvalidKeyError";

  constructor(message: string, options?: { cause?: unknown }) {
    super("INVALID_KEY", message, options);
  }
}

/** A method failed; `code` is `data.code` of the JSON-RPC error, or `RPC_<number>` where there is none. */
export class RpcError extends SallyportError {
  override readonly name = "RpcError";
  /** The number of JSON-RPC; null over the relay socket, whose errors have none. */
  readonly number: number | null;
  readonly data: unknown;
  readonly retryable: boolean;
  readonly retryAfterMs: number | null;

  constructor(error: {
    code: string;
    message: string;
    number: number | null;
    data: unknown;
    retryable: boolean;
    retryAfterMs: number | null;
  }) {
    super(error.code, error.message);
    this.number = error.number;
    this.data = error.data;
    this.retryable = error.retryable;
    this.retryAfterMs = error.retryAfterMs;
  }
}

/** An `enqueue` was answered with `accepted: false`; `code` is the reason that the server gave, or `REFUSED`. */
export class NotAcceptedError extends SallyportError {
  override readonly name = "NotAcceptedError";
}

/**
 * The socket closed before the answer came (`RELAY_INTERRUPTED`), or none came in time (`TIMEOUT`): the message or
 * call may have had its effect.
 */
export class RelayInterruptedError extends SallyportError {
  override readonly name = "RelayInterruptedError";
}

/** The relay connection has ended permanently (`RELAY_STOPPED`); its `ended` promise says why. */
export class RelayStoppedError extends SallyportError {
  override readonly name = "RelayStoppedError";

  constructor(message: string) {
    super("RELAY_STOPPED", message);
  }
}

/**
 * Thrown by a message handler: the message is refused permanently and becomes a dead letter. Any other error leaves it
 * unacknowledged, so that it is delivered again. The message is the reason that its sender gets, at most 512 characters.
 */
export class Refuse extends Error {
  override readonly name: string = "Refuse";
}

/**
 * A reply too many in one conversation (`REPLY_LIMIT`): most likely two programs answer each other. Where a handler lets it
 * through, the message that it would have replied to is refused, so that the two come to an end.
 */
export class ReplyLimitError extends Refuse {
  override readonly name = "ReplyLimitError";
  readonly code = "REPLY_LIMIT";

  constructor(
    limit: { readonly max: number; readonly windowMs: number },
    peerDid: string,
    conversationId: string | null,
  ) {
    const where = conversationId === null ? "outside any conversation" : `in the conversation ${conversationId}`;
    const minutes = Math.round(limit.windowMs / 6_000) / 10;
    super(
      `${limit.max} automatic replies to ${peerDid} ${where} within ${minutes} minutes are the limit: two programs seem to answer each other (the option replyLimit)`,
    );
  }
}

/** A request got no answer in time (`NO_REPLY`). It may still be answered: then the answer is a message like any other. */
export class NoReplyError extends SallyportError {
  override readonly name = "NoReplyError";

  constructor(timeoutMs: number) {
    super("NO_REPLY", `no reply came within ${timeoutMs} ms`);
  }
}

/** Thrown by a message handler that cannot take the message now: it is delivered again after that time, its sender's later ones after it. */
export class NotNow extends Error {
  override readonly name = "NotNow";
  /** 0 to 3,600,000 milliseconds; undefined: a second at first, then ever longer. */
  readonly retryAfterMs: number | undefined;

  /** @param message for this side's own log; the sender does not see it */
  constructor(message: string, retryAfterMs?: number) {
    super(message);
    this.retryAfterMs =
      retryAfterMs === undefined ? undefined : Math.min(Math.max(0, Math.round(retryAfterMs)), 3_600_000);
  }
}
