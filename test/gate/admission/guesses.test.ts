import { describe, expect, test } from "vitest";
import type { GateAnswer } from "../../../src/gate/protocol/calls.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import {
  callerOf,
  claim,
  gateStub,
  hashOf,
  newAgent,
  newAgentHolder,
  newDeviceKey,
  newSharedSecret,
  pairDevice,
} from "../../support/gate-participants.ts";

const ADDRESS = "192.0.2.77";
const TIMES = 30;

/** The answers to guesses at the shared secret of an agent, one after the other. */
async function guessShared(did: AgentDid): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (let n = 0; n < TIMES; n++) {
    // oxlint-disable no-await-in-loop -- one after the other
    const caller = await callerOf({ kind: "shared", did, secret: `sps_guess ${n}` }, ADDRESS);
    const request = { caller, surface: "rpc" as const, requestId: "r", origin: null, calls: [{ method: "test.none" }] };
    answers.push(await (gateStub(did).call(request) as Promise<GateAnswer>));
    // oxlint-enable no-await-in-loop
  }
  return answers;
}

/** The answers to claims of a device with a key that is not its own. */
async function guessClaims(did: AgentDid, deviceId: string): Promise<unknown[]> {
  const key = await newDeviceKey();
  const answers: unknown[] = [];
  // oxlint-disable-next-line no-await-in-loop -- one after the other
  for (let n = 0; n < TIMES; n++) answers.push(await claim({ did, deviceId, key }, ADDRESS));
  return answers;
}

/** Answers without what is a time. */
const told = (answers: unknown[]): string =>
  JSON.stringify(answers).replaceAll(/"retryAfterMs":\d+/g, '"retryAfterMs":0');

describe("thirty guesses from one address", () => {
  test("at a shared secret are answered alike, whether the agent has one, has a gate, or does not exist", async () => {
    const withSecret = newAgentHolder(newAgent());
    await newSharedSecret(withSecret.did);
    const withGate = newAgentHolder(newAgent());
    await pairDevice(withGate, ["relay"]);
    const answers = await Promise.all([withSecret.did, withGate.did, newAgent()].map(guessShared));
    const [first, ...others] = answers.map(told);
    expect(others).toEqual([first, first]);
    expect(first?.match(/gate-credential-refused/g)).toHaveLength(10);
    expect(first?.match(/gate-address-locked/g)).toHaveLength(20);
  });

  test("at a device's claim are answered alike, whether there is the device, the agent, or neither", async () => {
    const agent = newAgentHolder(newAgent());
    const { deviceId } = await pairDevice(agent, ["relay"]);
    const unknown = (await hashOf("no device")).slice(0, 22);
    const answers = await Promise.all([
      guessClaims(agent.did, deviceId),
      guessClaims(newAgentHolder(newAgent()).did, deviceId),
      guessClaims(newAgent(), unknown),
    ]);
    const [first, ...others] = answers.map(told);
    expect(others).toEqual([first, first]);
    expect(first?.match(/gate-address-locked/g)).toHaveLength(20);
  });
});
