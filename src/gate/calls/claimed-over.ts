/** The end of a device's token by the claim of its next one. */
import type { Device } from "../../authority/device/device.ts";
import type { Devices } from "../../authority/device/devices.ts";
import { deviceAuthority } from "../../authority/names.ts";
import type { AgentDid } from "../../wire/did.ts";
import type { Relay } from "../relay/relay.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Revocation } from "./revocation.ts";

/** Completes the end of the token that a claim has replaced: every end of an authority is completed before its answer. */
export async function endClaimedOver(
  deps: {
    self: AgentDid;
    devices: Pick<Devices, "leaveToClaim">;
    revocation: Pick<Revocation, "complete">;
    commits: Pick<GroupCommit, "commit">;
    relay: Pick<Relay, "sweep">;
  },
  device: Device,
): Promise<void> {
  const { self, devices, revocation, commits, relay } = deps;
  try {
    await revocation.complete([{ authority: deviceAuthority(self, device.deviceId), epoch: device.epoch }]);
  } catch (error) {
    // The new token is in no answer: the device fetches another.
    devices.leaveToClaim(device);
    throw error;
  } finally {
    await commits.commit(() => relay.sweep(Date.now()));
  }
}
