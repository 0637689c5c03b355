/** The outcome of a decision that can refuse: a value, or a reason that the caller must look at. */
export type Result<T, E> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: E };

/** A decision that went well. */
export const ok = <T>(value: T): { readonly ok: true; readonly value: T } => ({ ok: true, value });

/** A decision that refused, and why. */
export const err = <E>(error: E): { readonly ok: false; readonly error: E } => ({ ok: false, error });
