/** What a form of messages is. */
import type { Delivery } from "../message.ts";

/** A request's body and the headers that describe it. */
export type Formatted = { readonly headers: Readonly<Record<string, string>>; readonly body: string };

/** Writes a message; a text is why it cannot be written in this form, which its sender reads. */
export type Format = (message: Delivery) => Formatted | string;
