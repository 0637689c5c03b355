/** Failures of the command: what went wrong, what to do about it, and the exit code that scripts can rely on. */
import {
  ClockNotTrustedError,
  CredentialExpiredError,
  CredentialNotYetValidError,
  InvalidArgumentError,
  InvalidKeyError,
  NotAcceptedError,
  ProblemError,
  RelayInterruptedError,
  RpcError,
  SallyportError,
  UnexpectedAnswerError,
  UnreachableError,
} from "../../client/index.ts";

/** Exit codes, shown by `sallyport --help`. */
export const EXIT = {
  ok: 0,
  /** A defect of this command, or something unforeseen. */
  unexpected: 1,
  /** The arguments make no sense. */
  usage: 2,
  /** Something is missing or unsafe on this machine. */
  setup: 3,
  /** The server understood and said no. */
  refused: 4,
  /** The credential is over or was never one. */
  credential: 5,
  /** No answer, or not at the moment: the same command may succeed later. */
  unavailable: 6,
  /** `doctor` found something wrong. */
  unhealthy: 7,
} as const;

/** JSON-RPC: not, or no longer, authenticated. */
const RPC_UNAUTHENTICATED = -32001;

/** One of {@link EXIT}. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** A failure of the command itself. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly code: string;
  readonly exitCode: ExitCode;
  /** What the user can do. */
  readonly advice: string | null;

  constructor(code: string, message: string, options: { exitCode: ExitCode; advice?: string; cause?: unknown }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.exitCode = options.exitCode;
    this.advice = options.advice ?? null;
  }
}

/** @returns a failure of the arguments */
export function usage(message: string, cause?: unknown): CliError {
  return new CliError("USAGE", message, { exitCode: EXIT.usage, cause });
}

/** A failure as it is shown. */
export type Shown = {
  code: string;
  message: string;
  advice: string | null;
  exitCode: ExitCode;
  requestId: string | null;
};

/** @returns what to show of anything that was thrown; a defect keeps its own message */
export function shownFailure(error: unknown): Shown {
  if (error instanceof CliError) {
    const { code, message, advice, exitCode } = error;
    return { code, message, advice, exitCode, requestId: null };
  }
  if (error instanceof SallyportError) {
    return {
      code: error.code,
      message: error.message,
      advice: adviceFor(error.code),
      exitCode: exitCodeOf(error),
      requestId: error instanceof ProblemError ? error.requestId : null,
    };
  }
  if (error instanceof InvalidArgumentError) {
    const { message } = error;
    return { code: "USAGE", message, advice: null, exitCode: EXIT.usage, requestId: null };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: "UNEXPECTED", message, advice: null, exitCode: EXIT.unexpected, requestId: null };
}

/** @returns the exit code that belongs to a failure of the client library */
export function exitCodeOf(error: SallyportError): ExitCode {
  if (error instanceof CredentialExpiredError) return EXIT.credential;
  if (error instanceof CredentialNotYetValidError) return EXIT.unavailable;
  if (error instanceof ClockNotTrustedError) return EXIT.setup;
  if (error instanceof InvalidKeyError) return EXIT.setup;
  if (error instanceof UnreachableError || error instanceof RelayInterruptedError) return EXIT.unavailable;
  if (error instanceof UnexpectedAnswerError) return (error.status ?? 0) >= 500 ? EXIT.unavailable : EXIT.setup;
  if (error instanceof RpcError) {
    if (error.number === RPC_UNAUTHENTICATED) return EXIT.credential;
    return error.retryable ? EXIT.unavailable : EXIT.refused;
  }
  if (error instanceof NotAcceptedError) return EXIT.refused;
  if (error instanceof ProblemError) {
    if (error.status === 401) return EXIT.credential;
    return error.status === 429 || error.status >= 500 ? EXIT.unavailable : EXIT.refused;
  }
  return EXIT.unexpected;
}

/** @returns what the user can do about a code, or null where the message says it all */
export function adviceFor(code: string): string | null {
  switch (code) {
    case "UNREACHABLE":
    case "TIMEOUT":
      return "Check the address (`sallyport init --url …`) and that the server runs; `sallyport doctor` looks closer.";
    case "UNEXPECTED_ANSWER":
      return "Check the address with `sallyport doctor`; something else may answer there.";
    case "CREDENTIAL_EXPIRED":
    case "PROXY_AUTH_INVALID_AIT":
      return "Ask the operator to run `sallyport agent rekey`.";
    case "CREDENTIAL_NOT_YET_VALID":
      return "Try again in a minute; `sallyport doctor` says how far this machine's clock is off.";
    case "CLOCK_NOT_TRUSTED":
      return "Set this machine's clock (NTP). If it is the server's clock that is right, and you trust the server: --trust-clock.";
    case "PROXY_AUTH_REVOKED":
      return "The agent has been revoked. Register it anew, or ask the operator why.";
    case "PROXY_AUTH_INVALID_TOKEN":
      return "Check the operator token (`sallyport init`); for an agent, run `sallyport agent rekey`.";
    case "PROXY_AUTH_INVALID_PROOF":
    case "PROXY_AUTH_INVALID_SIGNATURE_INPUT":
      return "Behind a proxy that gives the server another host name than the address here, that host has to be among the server's PUBLIC_AUTHORITIES. Otherwise the key here is not the agent's: `sallyport doctor`.";
    case "PROXY_AUTH_TIMESTAMP_SKEW":
      return "Set this machine's clock (NTP); `sallyport doctor` says how far it is off.";
    case "PROXY_AUTH_FORBIDDEN":
      return "For a send: pair with the recipient first (`sallyport pair start` on one side, `pair confirm` on the other).";
    case "PROXY_PAIR_TICKET_INVALID":
    case "PROXY_GONE":
      return "Ask the other side for a new ticket: `sallyport pair start`.";
    case "PROXY_RATE_LIMIT_EXCEEDED":
    case "PROXY_RELAY_QUEUE_FULL":
    case "PROXY_AUTH_DEPENDENCY_UNAVAILABLE":
    case "OVERLOADED":
      return "Try again in a moment.";
    case "PROXY_QUOTA_EXCEEDED":
      return "Delete tasks or keys that are no longer needed, or have the operator raise the quota.";
    case "DRAIN_TIMEOUT":
      return "It is not over for sure yet. Run the same command again until it succeeds: doing it twice does no harm.";
    case "PROXY_AUTH_CLIENT_INVALIDATED":
      return "The device's token has ended. After a rotation `sallyport device claim NAME` fetches the next one; after a revocation or removal pair anew: `sallyport device request NAME`.";
    case "PROXY_HOOK_RECIPIENT_INVALID":
      return "Give the recipient's DID: did:cdi:<authority>:agent:<ULID>.";
    default:
      return null;
  }
}
