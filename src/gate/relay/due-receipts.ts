/** Receipts of dead letters that are due when a socket opens. */
import type { Outbox } from "../outbox/outbox.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Relay } from "./relay.ts";
import type { Session } from "./sockets.ts";

/** Sends the receipts of this agent's dead letters that are due over a socket that has just opened, a batch a commit. */
export async function sendDueReceipts(
  deps: {
    outbox: Pick<Outbox, "receiptsDue">;
    commits: Pick<GroupCommit, "commit">;
    relay: Pick<Relay, "sendReceipts">;
  },
  session: Session,
): Promise<void> {
  const { outbox, commits, relay } = deps;
  let last: string | null = null;
  do {
    // oxlint-disable-next-line no-await-in-loop -- one batch after the other
    last = await commits.commit((): string | null => {
      const due = outbox.receiptsDue(last);
      relay.sendReceipts(due, session);
      return due.at(-1)?.deliveryId ?? null;
    });
  } while (last !== null);
}
