import { afterEach, describe, expect, test, vi } from "vitest";
import { Gate } from "../../../src/gate/gate.ts";
import type { GateAnswer, GateCaller } from "../../../src/gate/protocol/calls.ts";
import { call, callerOf, gateStub, newAgent, newAgentHolder, pairDevice } from "../../support/gate-participants.ts";
import { admissionOf, eventually, rows, sent } from "../../support/gate.ts";

afterEach(() => void vi.restoreAllMocks());

const never = (): Promise<never> => new Promise(() => {});
const broken = (): Promise<never> => Promise.reject(new Error("the other gate is broken"));

/** A message that waits at its recipient's gate. */
async function waitingMessage() {
  const [alice, bob] = [newAgent(), newAgent()];
  const deliveryId = await sent(alice, bob, {});
  await eventually(async () => expect(await rows(alice, "SELECT state FROM outbound")).toMatchObject([{ state: 1 }]));
  return { alice, deliveryId };
}

/** Asks for the state of a message, as the route does. */
async function status(caller: GateCaller, did: Parameters<typeof gateStub>[0], deliveryId: string) {
  const asked = { method: "delivery.get", params: { deliveryId } };
  const request = { caller, surface: "http" as const, requestId: "test-request", origin: null, calls: [asked] };
  const answer = (await gateStub(did).call(request)) as GateAnswer;
  if (!answer.ok) return answer.refusal;
  const [reply] = answer.replies;
  return reply?.ok === true ? (JSON.parse(reply.resultText) as Record<string, unknown>) : reply;
}

describe("another agent's gate", () => {
  test("that fails leaves the attempts of a message unknown at the moment, and no more than that", async () => {
    const { alice, deliveryId } = await waitingMessage();
    vi.spyOn(Gate.prototype, "attempts").mockImplementation(broken);
    const caller = { kind: "agent" as const, admission: admissionOf(alice, { timestampSeconds: Date.now() / 1_000 }) };
    expect(await status(caller, alice, deliveryId)).toMatchObject({ deliveryId, state: "queued", attempts: null });
  });

  test("that hangs keeps no call in flight until the end of its authority would be a DRAIN_TIMEOUT", async () => {
    const { alice, deliveryId } = await waitingMessage();
    const device = await pairDevice(newAgentHolder(alice), ["send"]);
    const asked = vi.spyOn(Gate.prototype, "attempts").mockImplementation(never);
    const hanging = status(await callerOf(device), alice, deliveryId);
    await eventually(() => expect(asked).toHaveBeenCalled());
    const end = await call(alice, "device.token.revoke", { agentDid: alice, deviceId: device.deviceId });
    expect(end).toMatchObject({ ok: true, result: { fenced: { inFlight: 1 } } });
    expect(await hanging).toMatchObject({ ok: false, code: "PROXY_AUTH_REVOKED" });
  });
});
