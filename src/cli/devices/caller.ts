/** Whose devices a command is about, and by whose authority it acts on them. */
import type { Command } from "commander";
import { type Devices, RpcError, type Scope, SCOPES } from "../../client/index.ts";
import type { DeviceRecord } from "../storage/device-files.ts";
import { CliError, EXIT, usage } from "../terminal/errors.ts";

import type { Session } from "../session/session.ts";

/** The options by which a caller is chosen. */
export type Who = { operator?: boolean; of?: string; device?: string };

/** By whom the devices of an agent are managed. */
export type DeviceCaller = {
  readonly devices: Devices;
  readonly agentDid: string;
  /** The device that acts, where one does. */
  readonly self: DeviceRecord | null;
};

/** Adds the options by which a caller is chosen. @param byDefault who acts when none is given */
export function addWho(command: Command, byDefault: "agent" | "operator"): Command {
  return command
    .option("--operator", `act as the operator${byDefault === "operator" ? " (the default)" : ""}`)
    .option("--of <did>", "the devices of an agent that is not on this machine (operator)")
    .option("--device <name>", "act as a device of this machine that may");
}

/** @throws CliError when more than one is chosen, or the one has no credential here */
export async function deviceCaller(session: Session, who: Who, byDefault: "agent" | "operator"): Promise<DeviceCaller> {
  if (who.device !== undefined) {
    if (who.operator === true || who.of !== undefined) throw usage("give --device, or --operator with --of, not both");
    const { record, client } = await session.device(who.device);
    return { devices: client.devices, agentDid: record.agentDid, self: record };
  }
  if (who.operator === true || who.of !== undefined || byDefault === "operator") {
    const agentDid = who.of ?? (await session.agentRecord()).agentDid;
    return { devices: (await session.operator()).devicesOf(agentDid), agentDid, self: null };
  }
  const { record, client } = await session.agent();
  return { devices: client.devices, agentDid: record.agentDid, self: null };
}

/** The devices of this machine that belong to an agent. */
export async function devicesHere(session: Session, agentDid: string): Promise<DeviceRecord[]> {
  const found: DeviceRecord[] = [];
  for (const name of await session.home.devices.names()) {
    const record = await session.home.devices.get(name);
    if (record?.agentDid === agentDid) found.push(record);
  }
  return found;
}

/** A device, by its id or by its name on this machine. */
export type Target = { readonly deviceId: string; readonly here: DeviceRecord | null };

/** @throws CliError `NO_DEVICE` when it is neither */
export async function targetDevice(session: Session, agentDid: string, given: string): Promise<Target> {
  const here = await devicesHere(session, agentDid);
  const named = here.find(({ name }) => name === given) ?? here.find(({ deviceId }) => deviceId === given);
  if (named !== undefined) return { deviceId: named.deviceId, here: named };
  if (/^[A-Za-z0-9_-]{22}$/.test(given)) return { deviceId: given, here: null };
  throw new CliError("NO_DEVICE", `${given} is neither a device id nor a device of this agent on this machine`, {
    exitCode: EXIT.usage,
    advice: "`sallyport device list` shows the ids.",
  });
}

/** Scopes as an option's parser: names separated by commas. */
export function scopeList(text: string): Scope[] {
  const given = text.split(",").map((scope) => scope.trim());
  const unknown = given.find((scope) => !SCOPES.some((known) => known === scope));
  if (unknown !== undefined) throw usage(`${unknown} is no scope; there are ${SCOPES.join(", ")}`);
  return SCOPES.filter((scope) => given.includes(scope));
}

/** Says what to do where a refusal says no more than that there is nothing. */
export async function orAdvise<T>(work: Promise<T>, advice: string): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof RpcError) || error.code !== "PROXY_NOT_FOUND") throw error;
    throw new CliError(error.code, error.message, { exitCode: EXIT.refused, advice, cause: error });
  }
}
