/**
 * The tables of messages in a gate's own SQLite: each column once, with its type. Row types are derived from it, and a test
 * compares it with what the migrations make.
 */

type ColumnType = "text" | "integer" | "text?" | "integer?";

/** A message that came for this agent, or waits, or was refused: the recipient's side. Key: `delivery_id`. */
const INBOUND = {
  delivery_id: "text",
  /** The sender's DID, or the name of a sender without a gate. */
  sender: "text",
  /** See `QUEUE_STATE`. */
  state: "integer",
  bytes: "integer",
  created_at_ms: "integer",
  /** When it was taken over; from its end on, when that was. */
  updated_at_ms: "integer",
  /** How long it, or one of its sender's before it, was in the recipient's hands without a failure: time that does not count. */
  held_ms: "integer",
  attempts: "integer",
  /** Waiting: not before. Pushed: when the attempt fails, as far as it has been recorded. */
  due_at_ms: "integer",
  /** The socket that it was pushed to, or that left its last attempt unanswered. */
  socket_id: "text?",
  /** 1 while it is on its way to `socket_id`. */
  is_pushed: "integer",
  /** Whose socket that is: only this holder may acknowledge it. */
  holder: "text?",
  reason: "text?",
  /** 1 once the sender's gate knows how it ended. */
  reported: "integer",
  /** 1 for a dead letter that waits again, until the sender's gate knows. */
  revived: "integer",
  /** JSON text. */
  envelope: "text",
  /** JSON text; null once it is delivered or purged. */
  body: "text?",
} as const satisfies Record<string, ColumnType>;

/** A message that this agent has sent: the sender's side. Key: `delivery_id`. */
const OUTBOUND = {
  delivery_id: "text",
  to_did: "text",
  /** See `OUTBOX_STATE`. */
  state: "integer",
  bytes: "integer",
  created_at_ms: "integer",
  updated_at_ms: "integer",
  attempts: "integer",
  reason: "text?",
  /** 1 for a dead letter of which the sender has not been notified. */
  receipt_due: "integer",
  origin_frame_id: "text?",
  /** JSON text; `{}` once the recipient's gate has it. */
  envelope: "text",
  /** JSON text; null once the recipient's gate has it, and where it is shared. */
  body: "text?",
  /** Of a message to all of a group: its body's row in `shared_bodies`. */
  shared_id: "text?",
} as const satisfies Record<string, ColumnType>;

/** A body that several messages share, while one of them needs it. Key: `shared_id`. */
const SHARED_BODIES = {
  shared_id: "text",
  body: "text",
} as const satisfies Record<string, ColumnType>;

/** What an idempotency key stands for. Key: `key`. */
const IDEMPOTENCY = {
  key: "text",
  body_sha256: "text",
  delivery_id: "text",
  created_at_ms: "integer",
} as const satisfies Record<string, ColumnType>;

/** The tables by name. */
export const MESSAGE_TABLES = {
  inbound: INBOUND,
  outbound: OUTBOUND,
  shared_bodies: SHARED_BODIES,
  idempotency: IDEMPOTENCY,
} as const;

type ValueOf<C extends ColumnType> = C extends "text"
  ? string
  : C extends "integer"
    ? number
    : C extends "text?"
      ? string | null
      : number | null;

/** One row of a table, as a statement that selects all of it returns it. */
export type Row<T extends keyof typeof MESSAGE_TABLES> = {
  -readonly [C in keyof (typeof MESSAGE_TABLES)[T]]: (typeof MESSAGE_TABLES)[T][C] extends ColumnType
    ? ValueOf<(typeof MESSAGE_TABLES)[T][C]>
    : never;
};
