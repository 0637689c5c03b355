/** A device's token: claimed, rotated, ended. */
import {
  claimDeviceToken,
  importKeys,
  ProblemError,
  rotateDeviceToken,
  type Scope,
  UnreachableError,
} from "../../client/index.ts";
import { type DeviceCaller, deviceCaller, orAdvise, type Target, targetDevice, type Who } from "./caller.ts";
import type { DeviceRecord } from "../storage/device-files.ts";
import { adviceFor, CliError, EXIT, type ExitCode, usage } from "../terminal/errors.ts";
import { mustConfirm } from "../session/input.ts";
import { timeText } from "../terminal/output.ts";
import { deviceAddress, deviceOptions, type Session } from "../session/session.ts";

type Fenced = { readonly sockets: number; readonly inFlight: number };

const NO_SUCH_DEVICE =
  "`sallyport device list` shows what there is; without the scope `devices` a device acts on itself alone.";

/** Fetches the token that waits, and stores it before it says so. */
export async function claim(session: Session, name: string): Promise<void> {
  const { devices } = session.home;
  const claimed = await devices.update(name, async (stored) => {
    const keys = await importKeys(stored.keys);
    const { agentDid, deviceId } = stored;
    const baseUrl = deviceAddress(stored, session.givenUrl);
    try {
      const waiting = await claimDeviceToken({ ...session.connection(baseUrl), keys, agentDid, deviceId });
      return { ...stored, token: waiting.token, scopes: waiting.scopes, expiresAtMs: waiting.expiresAtMs };
    } catch (error) {
      throw claimFailed(name, stored, error);
    }
  });
  const { deviceId, scopes, expiresAtMs } = claimed;
  await session.output.result({ name, deviceId, scopes, expiresAtMs, file: devices.path(name) }, [
    `${name} has its token, good until ${timeText(expiresAtMs ?? 0)}, for ${scopes.join(", ")}`,
    `  file    ${devices.path(name)} (secret)`,
  ]);
}

function claimFailed(name: string, { token }: DeviceRecord, error: unknown): unknown {
  const failure = (message: string, exitCode: ExitCode, advice: string): CliError => {
    const code = error instanceof ProblemError || error instanceof UnreachableError ? error.code : "UNEXPECTED";
    return new CliError(code, message, { exitCode, advice, cause: error });
  };
  const cure = `\`sallyport device rotate ${name}\` by its agent or the operator makes another one wait`;
  if (error instanceof ProblemError && error.code === "PROXY_CONFLICT") {
    const advice =
      token === null ? `It was fetched before and is lost? ${cure}.` : "The one that is stored here is the last.";
    return failure("no token waits for this device", EXIT.refused, advice);
  }
  if (error instanceof ProblemError && error.code === "PROXY_AUTH_INVALID_TOKEN") {
    return failure(
      "the device is not paired, or not with this key",
      EXIT.credential,
      `It has to be approved first: \`sallyport device approve\`. After a revocation or removal pair anew: \`sallyport device request ${name}\`.`,
    );
  }
  if (error instanceof UnreachableError) {
    const advice = `Run it again. If then none waits, the answer was lost: ${cure}.`;
    return failure(error.message, EXIT.unavailable, advice);
  }
  return error;
}

/** Of another device the next token waits to be claimed; a device that rotates itself gets it with the answer. */
export async function rotate(
  session: Session,
  given: string | undefined,
  options: Who & { scopes?: Scope[] },
): Promise<void> {
  const caller = await deviceCaller(session, options, "agent");
  if (given === undefined && caller.self === null) throw usage("give the device: sallyport device rotate DEVICE");
  const target = given === undefined ? null : await targetDevice(session, caller.agentDid, given);
  const { self } = caller;
  if (self !== null && (target === null || target.deviceId === self.deviceId)) {
    await rotateItself(session, self.name, options.scopes);
    return;
  }
  const deviceId = target?.deviceId ?? "";
  const rotated = await orAdvise(
    caller.devices.rotate(deviceId, options.scopes),
    `${NO_SUCH_DEVICE} A revoked device is not rotated: pair it anew.`,
  );
  const next = `next, where its key is: sallyport device claim ${target?.here?.name ?? "NAME"}`;
  await session.output.result(rotated, [`the token of ${deviceId} has ended (${fencedText(rotated.fenced)})`, next]);
  remarkOnSecret(session, rotated);
}

async function rotateItself(session: Session, name: string, scopes: readonly Scope[] | undefined): Promise<void> {
  let ends: Fenced | null = null;
  let epoch = 0;
  const changed = await session.home.devices.update(name, async (stored) => {
    const rotated = await orAdvise(
      rotateDeviceToken(await deviceOptions(session, stored), scopes),
      "A device that rotates itself keeps its scopes or has fewer.",
    );
    ({ fenced: ends, epoch } = rotated);
    // Whatever was known of the old token's end does not hold for this one.
    return { ...stored, token: rotated.token, scopes: [...rotated.scopes], expiresAtMs: null };
  });
  const { deviceId } = changed;
  const how = ends === null ? "the answer was lost, and the token claimed" : fencedText(ends);
  await session.output.result(
    { deviceId, scopes: changed.scopes, epoch, fenced: ends, file: session.home.devices.path(name) },
    `${name} has another token, for ${changed.scopes.join(", ")}; the old one has ended (${how})`,
  );
}

/** Ends a device, and forgets its token where it is on this machine. @throws CliError, RpcError */
export async function revoke(session: Session, given: string, options: Who & { yes: boolean }): Promise<void> {
  const { caller, target } = await chosen(session, given, options);
  await mustConfirm(session, options.yes, `End the device ${given} permanently?`);
  const ended = await orAdvise(caller.devices.revoke(target.deviceId), NO_SUCH_DEVICE);
  if (target.here !== null) {
    await session.home.devices.update(target.here.name, (stored) => Promise.resolve({ ...stored, token: null }));
  }
  await session.output.result(ended, `${target.deviceId} is revoked (${fencedText(ended.fenced)})`);
  remarkOnSecret(session, ended);
}

/** Ends a device, takes it off the list, and deletes its file where it is on this machine. @throws CliError, RpcError */
export async function remove(session: Session, given: string, options: Who & { yes: boolean }): Promise<void> {
  const { caller, target } = await chosen(session, given, options);
  await mustConfirm(session, options.yes, `End the device ${given} and forget it?`);
  const ended = await orAdvise(
    caller.devices.remove(target.deviceId),
    `${NO_SUCH_DEVICE} What was only asked for is turned down: \`sallyport device reject\`.`,
  );
  if (target.here !== null) await session.home.devices.remove(target.here.name);
  await session.output.result(ended, `${target.deviceId} is removed (${fencedText(ended.fenced)})`);
  remarkOnSecret(session, ended);
}

async function chosen(session: Session, given: string, who: Who): Promise<{ caller: DeviceCaller; target: Target }> {
  const caller = await deviceCaller(session, who, "agent");
  return { caller, target: await targetDevice(session, caller.agentDid, given) };
}

/** What a device can do about the end of its connection. @param detail as the server said it */
export function adviceForEndedDevice(name: string, detail: string): string {
  if (detail.endsWith("rotated")) return `Fetch the next token: \`sallyport device claim ${name}\`, and start again.`;
  if (detail.includes("expired")) {
    return `Its agent or the operator runs \`sallyport device rotate ${name}\`; then \`sallyport device claim ${name}\`.`;
  }
  if (detail.endsWith("revoked") || detail.endsWith("removed")) {
    return `It is over permanently; pair anew: \`sallyport device request ${name}\`.`;
  }
  return adviceFor("PROXY_AUTH_CLIENT_INVALIDATED") ?? "";
}

/** The shared secret is the agent's own and outlasts who was told it: says so after the end of one who was. */
export function remarkOnSecret(session: Session, ended: { sharedSecretKnown?: true | undefined }): void {
  if (ended.sharedSecretKnown !== true) return;
  session.output.remark("It knew the agent's shared secret, which is still in force: sallyport shared rotate");
}

/** @returns in words what an end has closed */
export function fencedText({ sockets, inFlight }: Fenced): string {
  return `${counted(sockets, "socket")} closed, ${counted(inFlight, "call")} ended`;
}

function counted(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
