/** How a family of commands joins the program: one file each, one function each. */
import type { Command } from "commander";
import type { Session } from "./session.ts";

/** Runs a command's action with the session that its options ask for, and sets the exit code. */
export type Run = (action: (session: Session) => Promise<number | void>) => Promise<void>;

/**
 * Adds a family's commands.
 *
 * @param program what to add them to
 * @param run what each action is run by
 */
export type Family = (program: Command, run: Run) => void;
