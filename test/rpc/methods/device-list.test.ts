/** How many devices an agent may have, and how much a list of them says: it has no pages. */
import { describe, expect, test } from "vitest";
import { ROOT } from "../../../src/authority/operator.ts";
import type { Device } from "../../../src/authority/device/device.ts";
import { pairDigest, type PairRequest } from "../../../src/authority/device/pair-requests.ts";
import { SCOPES } from "../../../src/authority/scopes.ts";
import type { CallContext } from "../../../src/call/context.ts";
import type { GateLocal } from "../../../src/call/gate.ts";
import { createDispatcher } from "../../../src/rpc/dispatcher.ts";
import { DEVICES_MAX, shownDevices } from "../../../src/devices/pairing.ts";
import { shownDeviceOf } from "../../../src/rpc/methods/device-schemas.ts";
import { deviceMethods } from "../../../src/rpc/methods/devices.ts";
import { resFrame } from "../../../src/wire/frame-encoder.ts";
import { MAX_SERVER_FRAME_BYTES } from "../../../src/wire/frames.ts";
import { silentLog } from "../../support/silent-log.ts";

const NOW_MS = Date.UTC(2040, 0, 1);

const device = (n: number, over: Partial<Device> = {}): Device => ({
  deviceId: String(n).padStart(22, "d"),
  publicKey: "k".repeat(43),
  label: "€".repeat(64),
  ceiling: SCOPES,
  scopes: SCOPES,
  epoch: 1_000_000,
  lostScopes: {},
  tokenSha256: null,
  tokenExpiresAtMs: NOW_MS,
  tokenWaits: true,
  reclaimUntilMs: null,
  pairedAtMs: NOW_MS,
  rotatedAtMs: NOW_MS,
  lastUsedAtMs: NOW_MS,
  endedAtMs: null,
  endedAs: null,
  ...over,
});
const revoked = (n: number, endedAtMs: number): Device => device(n, { endedAtMs, endedAs: "revoked" });
const idsOf = (shown: { deviceId: string }[]): number[] =>
  shown.map(({ deviceId }) => Number(deviceId.replace(/^d+/, "")));

describe("a list of devices", () => {
  test("of as many as there may be fits into one frame of the relay, with every request that may be pending", () => {
    const devices = Array.from({ length: 2 * DEVICES_MAX }, (_, n) => device(n));
    const payload = {
      pending: Array.from({ length: 20 }, () => "r".repeat(1_024)),
      paired: shownDevices(devices).map((each) => shownDeviceOf(each, true)),
    };
    const text = resFrame({ idText: JSON.stringify("i".repeat(128)), ok: true, payloadText: JSON.stringify(payload) });
    expect(new TextEncoder().encode(text).length).toBeLessThan(MAX_SERVER_FRAME_BYTES);
  });

  test("shows all that are in order, and of the revoked the latest, in the order they were paired", () => {
    const devices = [
      revoked(1, 5),
      ...Array.from({ length: DEVICES_MAX - 2 }, (_, n) => device(1_000 + n)),
      revoked(2, 7),
      revoked(3, 6),
      revoked(4, 4),
    ];
    const shown = idsOf(shownDevices(devices));
    expect(shown).toHaveLength(DEVICES_MAX);
    expect(shown.slice(0, 2)).toEqual([1_000, 1_001]);
    expect(shown.slice(-2)).toEqual([2, 3]);
  });

  test("is whole where there is room", () => {
    expect(idsOf(shownDevices([revoked(1, 5), device(2), revoked(3, 4)]))).toEqual([1, 2, 3]);
  });
});

describe("an agent with as many devices as it may have", () => {
  /** The answer to an approval in a gate that has so many devices. */
  async function approve(wanted: Device, devices: readonly Device[]) {
    const shown = { publicKey: wanted.publicKey, label: wanted.label, scopes: wanted.scopes };
    const request: PairRequest = {
      ...shown,
      deviceId: wanted.deviceId,
      requestId: "0".repeat(26),
      digest: await pairDigest(shown),
      requestedBy: "agent:somebody",
      expiresAtMs: NOW_MS + 1,
    };
    const gate = {
      isEnded: () => false,
      audit() {},
      broadcast() {},
      announceTask() {},
      end: async ({ apply }: { apply(): unknown }) => ({ applied: apply(), fenced: { sockets: 0, inFlight: 0 } }),
      devices: {
        countChange: () => 0,
        active: () => devices,
        findActive: (id: string) => devices.find(({ deviceId }) => deviceId === id) ?? null,
        pair: () => wanted,
        requests: { find: () => request },
      },
    } as unknown as GateLocal;
    const ctx = {
      principal: ROOT,
      authority: { assertCurrent() {} },
      agentDid: "did:cdi:registry.sallyport.example:agent:01JDA00000000000000000000A",
      now: () => NOW_MS,
      log: silentLog,
      gate,
    } as unknown as CallContext;
    const params = { requestId: request.requestId, digest: request.digest };
    return createDispatcher(deviceMethods).dispatch(ctx, "rpc", "device.pair.approve", params);
  }

  test("gets no other, and may pair one of them anew", async () => {
    const devices = Array.from({ length: DEVICES_MAX }, (_, n) => device(n));
    expect(await approve(device(DEVICES_MAX), devices)).toMatchObject({ ok: false, code: "PROXY_CONFLICT" });
    expect(await approve(device(0), devices)).toMatchObject({ ok: true });
    expect(await approve(device(DEVICES_MAX), devices.slice(1))).toMatchObject({ ok: true });
  });
});
