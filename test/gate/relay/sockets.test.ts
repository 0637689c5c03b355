import { describe, expect, test } from "vitest";
import type { AuthorityRef } from "../../../src/authority/reference.ts";
import { GateRefusal } from "../../../src/gate/protocol/refusal.ts";
import { createSockets, SOCKETS_MAX, SOCKETS_PER_HOLDER_MAX } from "../../../src/gate/relay/sockets.ts";
import { newAgentDid, START_MS } from "../../support/gate.ts";

const agentDid = newAgentDid();
const END_MS = START_MS + 86_400_000;
const agent: AuthorityRef = {
  kind: "agent",
  epoch: 0,
  jti: "j",
  expMs: END_MS,
  principal: {
    kind: "agent",
    agentDid,
    ownerDid: "did:cdi:a.example:human:x" as never,
    jti: "j",
    expMs: END_MS,
    keyX: "",
  },
};
const device = (deviceId: string): AuthorityRef => ({
  kind: "device",
  epoch: 1,
  expMs: END_MS,
  principal: { kind: "device", agentDid, ownerDid: null, deviceId, scopes: ["relay"], epoch: 1, expMs: END_MS },
});

/** Sockets of an object that never sleeps. */
function openSockets() {
  const sockets = createSockets({ acceptWebSocket() {}, getWebSockets: () => [] }, () => {});
  const open = (authority: AuthorityRef): string => {
    try {
      sockets.accept(new WebSocketPair()[1], { authority, scopes: ["relay"], origin: null, dialect: "v1" }, START_MS);
      return "open";
    } catch (error) {
      if (!(error instanceof GateRefusal)) throw error;
      return error.refusal.reason;
    }
  };
  const openMany = (authority: AuthorityRef, times: number): number =>
    Array.from({ length: times }, () => open(authority)).filter((outcome) => outcome === "open").length;
  return { sockets, open, openMany };
}

describe("sockets of one agent", () => {
  test("one device opens 32 of them and no more; another device and the agent open theirs", () => {
    const { open, openMany } = openSockets();
    expect(openMany(device("a"), 100)).toBe(SOCKETS_PER_HOLDER_MAX);
    expect(open(device("a"))).toBe("gate-sockets-exhausted");
    expect(open(device("b"))).toBe("open");
    expect(open(agent)).toBe("open");
  });

  test("however many devices there are, the agent's own socket finds room, and the whole stays within its bound", () => {
    const { sockets, open, openMany } = openSockets();
    for (let n = 0; n < 20; n++) openMany(device(`device ${n}`), SOCKETS_PER_HOLDER_MAX);
    expect(sockets.size()).toBe(SOCKETS_MAX - 1);
    expect(open(agent)).toBe("open");
    expect(sockets.size()).toBe(SOCKETS_MAX);
    expect(open(device("late"))).toBe("gate-sockets-exhausted");
  });

  test("a device that closes one may open another", () => {
    const { sockets, open, openMany } = openSockets();
    openMany(device("a"), SOCKETS_PER_HOLDER_MAX);
    sockets.remove(sockets.all()[0]!);
    expect(open(device("a"))).toBe("open");
  });
});
