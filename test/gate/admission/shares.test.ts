import { describe, expect, test } from "vitest";
import { ENDING_RESERVE } from "../../../src/gate/admission/rate-limit.ts";
import { endsAuthority, PERMISSIONS } from "../../../src/rpc/permissions.ts";
import {
  call,
  callAll,
  callerOf,
  type Holder,
  newAgent,
  newAgentHolder,
  newSharedSecret,
  pairDevice,
} from "../../support/gate-participants.ts";

const RATE = 600;

/** Asks until nothing more is let through, in batches; returns how many calls passed. */
async function useUp(holder: Holder): Promise<number> {
  const asked = Array.from({ length: 50 }, () => ({ method: "test.none" }));
  for (let passed = 0; ;) {
    // oxlint-disable-next-line no-await-in-loop -- one batch after the other
    const answer = await callAll(holder.did, await callerOf(holder), asked);
    if (!answer.ok) return passed;
    const limited = answer.replies.filter((reply) => !reply.ok && reply.code === "PROXY_RATE_LIMIT_EXCEEDED").length;
    passed += asked.length - limited;
  }
}

describe("a device that asks as much as it can", () => {
  test("is refused at half of the agent's rate, while the agent and its secret are answered", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    const shared = await newSharedSecret(agent.did);
    // Its claim was counted too.
    expect(await useUp(device)).toBe(RATE / 2 - 1);
    expect(await call(device, "test.none")).toMatchObject({ reason: "gate-rate-exceeded" });
    expect(await call(agent, "device.pair.list")).toMatchObject({ ok: true });
    expect(await call(shared, "test.none")).toMatchObject({ ok: false, code: "PROXY_BAD_REQUEST" });
  });

  test("is revoked by its agent though both have nothing left", async () => {
    const agent = newAgentHolder(newAgent());
    const device = await pairDevice(agent, ["relay"]);
    await useUp(device);
    await useUp(agent);
    expect(await call(agent, "device.pair.list")).toMatchObject({ reason: "gate-rate-exceeded" });
    const { deviceId } = device;
    expect(await call(agent, "device.token.revoke", { deviceId })).toMatchObject({ ok: true });
    for (let n = 1; n < ENDING_RESERVE; n++) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      expect(await call(agent, "device.token.revoke", { deviceId })).toMatchObject({ ok: true });
    }
    expect(await call(agent, "device.token.revoke", { deviceId })).toMatchObject({ reason: "gate-rate-exceeded" });
  });
});

test("calls that end an authority: by name, as the methods are declared", () => {
  expect(Object.keys(PERMISSIONS).filter(endsAuthority)).toEqual([
    "pair.remove",
    "group/remove",
    "group/leave",
    "group/delete",
    "device.pair.remove",
    "device.token.rotate",
    "device.token.revoke",
    "shared.auth.rotate",
    "apikey/delete",
  ]);
});
