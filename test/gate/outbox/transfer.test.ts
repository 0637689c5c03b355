import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { AgentDid } from "../../../src/wire/did.ts";
import { aWhile, betweenGates, type Desk, eachNth, peer } from "../../support/between-gates.ts";
import { eventually, newAgentDid, pass, stopClock } from "../../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

const accept = (outbox: Desk["outbox"], isAwaited = false) =>
  void outbox.accept({ to: peer, bytes: 2, envelope: "{}", body: "{}", isAwaited }, Date.now());

describe("a hand-over", () => {
  test("never has two batches of one recipient in progress, and sends what has gathered in the next", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      await commit(() => accept(outbox));
      await eventually(() => expect(handOvers).toHaveLength(1));
      for (let n = 0; n < 5; n++) {
        pass(1_000);
        // oxlint-disable-next-line no-await-in-loop -- each in a group of its own
        await commit(() => accept(outbox));
      }
      expect(handOvers).toHaveLength(1);
      eachNth(handOvers, 0).answer({ taken: 1 });
      // At once: the clock stands still.
      await eventually(() => expect(handOvers).toHaveLength(2));
      expect(eachNth(handOvers, 1).args).toHaveLength(5);
    });
  });

  test("waits for more where that is asked for", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      await commit(() => accept(outbox));
      await eventually(() => expect(handOvers).toHaveLength(1));
      eachNth(handOvers, 0).answer({ taken: 1 });
      await aWhile();
      await commit(() => accept(outbox));
      await aWhile();
      expect(handOvers).toHaveLength(1);
      pass(250);
      await commit(() => accept(outbox));
      await eventually(() => expect(handOvers).toHaveLength(2));
      expect(eachNth(handOvers, 1).args).toHaveLength(2);
    }, 250);
  });

  test("to many recipients carries 8 MiB at once, and each has its turn", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      const body = JSON.stringify("x".repeat(1_048_574));
      await commit(() => {
        for (let n = 0; n < 12; n++) {
          outbox.accept({ to: newAgentDid(), bytes: body.length, envelope: "{}", body }, Date.now());
        }
      });
      await eventually(() => expect(handOvers).toHaveLength(8));
      await aWhile();
      expect(handOvers).toHaveLength(8);
      for (let n = 0; n < 12; n++) {
        // oxlint-disable-next-line no-await-in-loop -- one answer after the other
        await eventually(() => eachNth(handOvers, n).answer({ taken: 1 }));
      }
      await eventually(() => expect(outbox.isHolding()).toBe(false));
      expect(handOvers).toHaveLength(12);
    });
  });

  test("to a gate that never answers ends with the message's time, and a receipt", async () => {
    await betweenGates(async ({ outbox, commit, handOvers, receipts }) => {
      await commit(() => accept(outbox));
      await eventually(() => expect(handOvers).toHaveLength(1));
      eachNth(handOvers, 0).fail(new Error("no answer"));
      await aWhile();
      expect(receipts).toEqual([]);
      pass(3_600_000);
      await eventually(() => expect(handOvers).toHaveLength(2));
      eachNth(handOvers, 1).fail(new Error("no answer"));
      await eventually(() => expect(receipts).toMatchObject([{ status: "dead_lettered", reason: "expired" }]));
      expect(outbox.isHolding()).toBe(false);
    });
  });

  test("of what a request waits for goes at once, also where others wait for more", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      await commit(() => accept(outbox));
      await eventually(() => expect(handOvers).toHaveLength(1));
      await commit(() => accept(outbox, true));
      expect(handOvers).toHaveLength(1);
      // The clock stands still: nothing else falls due.
      eachNth(handOvers, 0).answer({ taken: 1 });
      await eventually(() => expect(handOvers).toHaveLength(2));
      eachNth(handOvers, 1).answer({ taken: 1 });
      await aWhile();
      await commit(() => accept(outbox));
      await aWhile();
      expect(handOvers).toHaveLength(2);
      await commit(() => accept(outbox, true));
      await eventually(() => expect(handOvers).toHaveLength(3));
      expect(eachNth(handOvers, 2).args).toHaveLength(2);
    }, 250);
  });

  test("of what a request waits for leaves a recipient alone that has no room", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      await commit(() => accept(outbox, true));
      await eventually(() => expect(handOvers).toHaveLength(1));
      eachNth(handOvers, 0).answer({ taken: 0 });
      await aWhile();
      await commit(() => accept(outbox, true));
      await aWhile();
      expect(handOvers).toHaveLength(1);
    });
  });

  test("that fails is made again with one message first, and its order stays", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      await commit(() => {
        accept(outbox);
        accept(outbox);
      });
      await eventually(() => expect(handOvers).toHaveLength(1));
      eachNth(handOvers, 0).fail(new Error("gone"));
      await eventually(() => {
        pass(200);
        expect(handOvers).toHaveLength(2);
      });
      expect(eachNth(handOvers, 1).args).toEqual(eachNth(handOvers, 0).args.slice(0, 1));
      eachNth(handOvers, 1).answer({ taken: 1 });
      await eventually(() => {
        pass(200);
        expect(handOvers).toHaveLength(3);
      });
      expect(eachNth(handOvers, 2).args).toEqual(eachNth(handOvers, 0).args.slice(1));
    });
  });

  test("goes to each recipient by itself: one that does not answer holds back no other", async () => {
    await betweenGates(async ({ outbox, commit, handOvers }) => {
      await commit(() => accept(outbox));
      const other: AgentDid = newAgentDid();
      await commit(() => void outbox.accept({ to: other, bytes: 2, envelope: "{}", body: "{}" }, Date.now()));
      await eventually(() => expect(handOvers).toHaveLength(2));
    });
  });
});
