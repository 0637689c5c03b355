import { afterEach, describe, expect, test, vi } from "vitest";
import { RECLAIM_MS } from "../../../src/authority/device/device.ts";
import {
  call,
  claim,
  claimed,
  done,
  newAgent,
  newAgentHolder,
  open,
  pairDevice,
} from "../../support/gate-participants.ts";

afterEach(() => void vi.useRealTimers());

/** A device that has rotated itself and has not heard the answer. */
async function withLostAnswer() {
  const agent = newAgentHolder(newAgent());
  const device = await pairDevice(agent, ["relay"]);
  const { token } = await done(device, "device.token.rotate", { deviceId: device.deviceId });
  return { agent, device, inBand: { ...device, token: token as unknown as string } };
}

describe("a device whose answer to its own rotation was lost", () => {
  test("claims once by its key, which ends the token of the lost answer and its sockets", async () => {
    const { device, inBand } = await withLostAnswer();
    const line = await open(inBand);
    const again = await claimed(device);
    expect(await call(again, "test.none")).toMatchObject({ ok: false, code: "PROXY_BAD_REQUEST" });
    expect(await call(inBand, "test.none")).toMatchObject({ reason: "gate-client-invalidated" });
    await expect(line.closed).resolves.toEqual({ code: 4001, reason: "client invalidated: rotated" });
    expect(await claim(device)).toMatchObject({ refusal: { reason: "gate-nothing-to-claim" } });
  });

  test("claims nothing after a minute, and what it holds stays", async () => {
    const { device, inBand } = await withLostAnswer();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + RECLAIM_MS });
    expect(await claim(device)).toMatchObject({ refusal: { reason: "gate-nothing-to-claim" } });
    expect(await call(inBand, "test.none")).toMatchObject({ ok: false, code: "PROXY_BAD_REQUEST" });
  });

  test("claims nothing after its revocation", async () => {
    const { agent, device } = await withLostAnswer();
    await done(agent.did, "device.token.revoke", { deviceId: device.deviceId });
    expect(await claim(device)).toMatchObject({ refusal: { reason: "gate-credential-refused" } });
  });
});
