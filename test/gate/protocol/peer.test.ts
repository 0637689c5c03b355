import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createPeerCalls, PEER_TIMEOUT_MS } from "../../../src/gate/protocol/peer.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = () => new Promise<never>(() => {});

describe("a call of another gate", () => {
  test("gives what is answered, and what it fails with, and leaves no timer behind", async () => {
    const peers = createPeerCalls();
    await expect(peers.ask(async () => 1)).resolves.toBe(1);
    await expect(peers.ask(() => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
    const throws = (): Promise<never> => {
      throw new Error("no stub");
    };
    await expect(peers.ask(throws)).rejects.toThrow("no stub");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("that is not answered is given up after 10 s and before 15, each by itself", async () => {
    const peers = createPeerCalls();
    const verdicts: string[] = [];
    const ask = (name: string): void => {
      void peers.ask(never).catch(({ code }: { code: string }) => verdicts.push(`${name} ${code}`));
    };
    ask("first");
    await vi.advanceTimersByTimeAsync(PEER_TIMEOUT_MS * 0.6);
    ask("second");
    await vi.advanceTimersByTimeAsync(PEER_TIMEOUT_MS * 0.4);
    expect(verdicts).toEqual([]);
    await vi.advanceTimersByTimeAsync(PEER_TIMEOUT_MS * 0.5);
    expect(verdicts).toEqual(["first DEADLINE_EXCEEDED"]);
    await vi.advanceTimersByTimeAsync(PEER_TIMEOUT_MS);
    expect(verdicts).toEqual(["first DEADLINE_EXCEEDED", "second DEADLINE_EXCEEDED"]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
