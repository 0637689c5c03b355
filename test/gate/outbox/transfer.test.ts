import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { AgentDid } from "../../../src/wire/did.ts";
import { aWhile, betweenGates, type Desk, eachNth, peer } from "../../support/between-gates.ts";
import { eventually, newAgentDid, pass, stopClock } from "../../support/gate.ts";

beforeEach(() => stopClock());
afterEach(() => void vi.useRealTimers());

const accept = (outbox: Desk["outbox"], isAwaited = false) =>
  void outbox.accept({ to: peer, bytes: 2, envelope: "{}", body: "{}", isAwaited }, Date.now());

describe("a hand-over", () => {
  test("never has two batches of one recipient under way, and sends what has gathered in the next", async () => {
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
      await eventually(() => {
        pass(50);
        expect(handOvers).toHaveLength(2);
      });
      expect(eachNth(handOvers, 1).args).toHaveLength(5);
    });
  });

  test("of what somebody waits for goes at once, also after one that was under way", async () => {
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
    });
  });

  test("of what somebody waits for leaves a recipient alone that has no room", async () => {
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
