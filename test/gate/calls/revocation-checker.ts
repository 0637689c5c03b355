/**
 * Judges a history against the revocation guarantee of contract §5. It knows nothing of how the gate works: it reads what was
 * asked, what was answered, and what came of it, in the order in which it happened.
 */

/** One credential as it was handed out: each token, secret and identity token is its own. `target` is what an end names. */
export type Event =
  | {
      kind: "issued";
      credential: string;
      targets: readonly string[];
      /** Whose authority it carries: it is over with that. */
      maker?: string;
      /** When it was asked for: it was made between then and now. */ askedAt: number;
    }
  /** `lasting`: what is handed out later is over as well, if the end is for good, or while nobody knows what came of it. */
  | { kind: "end-asked"; end: string; target: string; lasting?: "for-good" | "unless-answered" }
  | { kind: "end-answered"; end: string; ok: boolean }
  /** Something durable under a credential: a row in D1, a message taken in. */
  | { kind: "effect"; credential: string; what: string }
  /** A request or frame under it was answered as accepted. */
  | { kind: "accepted"; credential: string; what: string }
  /** A request or frame under it was refused for its authority, or its socket was closed for it. */
  | { kind: "refused"; credential: string; what: string }
  /** A frame left for a socket that was opened under it. */
  | { kind: "handed-out"; credential: string; what: string }
  | { kind: "crash" }
  | { kind: "eviction" };

type End = {
  target: string;
  lasting: "for-good" | "unless-answered" | undefined;
  askedAt: number;
  answeredAt: number;
  ok: boolean;
};

/** @returns what breaks the guarantee, in words; nothing when it holds. */
export function violations(history: readonly Event[]): string[] {
  const issued = new Map<string, { at: number; askedAt: number; targets: readonly string[]; maker?: string }>();
  const ends = new Map<string, End>();
  for (const [at, event] of history.entries()) {
    if (event.kind === "issued") issued.set(event.credential, { ...event, at });
    else if (event.kind === "end-asked") {
      ends.set(event.end, {
        target: event.target,
        lasting: event.lasting,
        askedAt: at,
        answeredAt: Infinity,
        ok: false,
      });
    } else if (event.kind === "end-answered")
      Object.assign(ends.get(event.end) ?? {}, { answeredAt: at, ok: event.ok });
  }

  /** From when on a credential must be over: the first acknowledged end that was asked for after it was handed out. */
  const overFrom = (credential: string): number => {
    const known = issued.get(credential);
    let from = known?.maker === undefined ? Infinity : overFrom(known.maker);
    for (const { target, lasting, askedAt, answeredAt, ok } of ends.values()) {
      if (known === undefined || !ok || !known.targets.includes(target)) continue;
      if (known.at < askedAt || lasting === "for-good") from = Math.min(from, answeredAt);
    }
    return from;
  };
  /** From when on it may be over: the first end that names it was asked for, and not answered before it can have been made. */
  const mayBeOverFrom = (credential: string): number => {
    const known = issued.get(credential);
    let from = known?.maker === undefined ? Infinity : mayBeOverFrom(known.maker);
    for (const { target, lasting, askedAt, answeredAt, ok } of ends.values()) {
      if (known === undefined || !known.targets.includes(target)) continue;
      const isLasting = lasting === "for-good" || (lasting === "unless-answered" && !ok);
      if (known.askedAt < answeredAt || isLasting) from = Math.min(from, askedAt);
    }
    return from;
  };

  const over = new Map([...issued.keys()].map((credential) => [credential, overFrom(credential)]));
  const found: string[] = [];
  for (const [at, event] of history.entries()) {
    switch (event.kind) {
      case "effect":
      case "accepted":
      case "handed-out":
        if (at > (over.get(event.credential) ?? -1)) {
          found.push(
            `${at}: ${event.kind} (${event.what}) under ${event.credential}, which is over since ${over.get(event.credential) ?? "ever"}`,
          );
        }
        break;
      case "refused":
        if (at < mayBeOverFrom(event.credential)) {
          found.push(`${at}: refused (${event.what}) under ${event.credential}, whose end nobody had asked for`);
        }
        break;
      default:
    }
  }
  return found;
}
