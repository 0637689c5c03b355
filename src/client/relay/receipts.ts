/** Receipts that come in: confirmed to the server when they are handled, so that none is lost between the two. */
import type { ReceiptFrame } from "../../wire/frames.ts";

/** What became of a message that this client had sent. */
export type Receipt = Pick<ReceiptFrame, "originalFrameId" | "deliveryId" | "toAgentDid" | "status" | "reason">;

/** Handles a receipt. When it throws or rejects, the receipt comes again with the next connection. */
export type OnReceipt = (receipt: Receipt) => void | Promise<void>;

/** The receipts of one socket. */
export type Receipts = {
  /** Hands a receipt to its handler. */
  take(frame: ReceiptFrame): void;
  /**
   * For the heartbeat that follows a batch of receipts: its answer confirms them. Without one in between it is answered at once,
   * with one whose handler has failed it is not.
   *
   * @param answer called when every receipt since the last heartbeat is handled
   */
  whenHandled(answer: () => void): void;
};

/**
 * @param onReceipt handles one receipt; without it they are confirmed unseen
 * @param onError called with the error of a handler that failed
 */
export function createReceipts(onReceipt: OnReceipt | undefined, onError: (error: unknown) => void): Receipts {
  let taken: Promise<boolean>[] = [];

  const handle = async (frame: ReceiptFrame): Promise<boolean> => {
    try {
      await onReceipt?.(frame);
      return true;
    } catch (error) {
      onError(error);
      return false;
    }
  };

  return {
    take(frame) {
      taken.push(handle(frame));
    },
    whenHandled(answer) {
      const batch = taken;
      taken = [];
      if (batch.length === 0) answer();
      else void Promise.all(batch).then((handled) => handled.every(Boolean) && answer());
    },
  };
}
