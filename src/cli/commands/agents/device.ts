/** `sallyport device …`: relay clients of an agent, each with a key and a token of its own. */
import {
  deviceIdOf,
  exportKeys,
  generateKeys,
  importKeys,
  type PairedDevice,
  type PendingDevice,
  pairingDigest,
  type Scope,
} from "../../../client/index.ts";
import {
  addWho,
  type DeviceCaller,
  deviceCaller,
  devicesHere,
  orAdvise,
  scopeList,
  targetDevice,
  type Who,
} from "../../devices/caller.ts";
import type { DeviceRecord } from "../../storage/device-files.ts";
import { isRecordName } from "../../storage/record-files.ts";
import { claim, remove, revoke, rotate } from "../../devices/token.ts";
import { CliError, EXIT, usage } from "../../terminal/errors.ts";
import type { Family } from "../../session/command.ts";
import { mustConfirm } from "../../session/input.ts";
import { table, timeText } from "../../terminal/output.ts";
import type { Session } from "../../session/session.ts";

type RequestOptions = { scopes: Scope[]; label?: string; newKey: boolean; publicKey?: string };

const SCOPES_DEFAULT: Scope[] = ["relay", "send"];

/** Adds `device request|key|list|approve|reject|rename|claim|rotate|revoke|remove`. */
export const deviceFamily: Family = (program, run) => {
  const device = program.command("device").description("pair relay clients with an agent, and end them");

  device
    .command("request")
    .description("make a key for a device and ask for its pairing, for 5 minutes (the agent)")
    .argument("<name>", "the device's name on this machine, and its label")
    .option("--scopes <list>", "of relay, send, tasks:read, tasks:write, devices, admin", scopeList, SCOPES_DEFAULT)
    .option("--label <text>", "how it is shown, instead of its name")
    .option("--new-key", "another key for a device that has one here, e.g. after a theft", false)
    .option("--public-key <key>", "of a device on another machine, as `device key` gave it there")
    .action((name: string, options: RequestOptions) => run((session) => request(session, name, options)));

  device
    .command("key")
    .description("make a key for a device on this machine, whose agent is on another one")
    .argument("<name>", "the device's name on this machine")
    .requiredOption("--of <did>", "DID of the agent that it shall belong to")
    .action((name: string, { of }: { of: string }) => run((session) => key(session, name, of)));

  addWho(device.command("list").description("what is paired, and what waits to be approved"), "agent").action(
    (who: Who) => run((session) => list(session, who)),
  );

  addWho(device.command("approve").description("approve a request as it is shown (operator)"), "operator")
    .argument("<request>", "id of the request or the device, or a name on this machine")
    .option("--digest <digest>", "approve what has this digest, without being asked")
    .action((given: string, options: Who & { digest?: string }) => run((session) => approve(session, given, options)));

  addWho(device.command("reject").description("turn a request down"), "agent")
    .argument("<request>", "id of the request or the device, or a name on this machine")
    .action((given: string, who: Who) => run((session) => reject(session, given, who)));

  addWho(device.command("rename").description("change how a device is shown"), "agent")
    .argument("<device>", "its id, or its name on this machine")
    .argument("[label]", "left out: it has none afterwards")
    .action((given: string, label: string | undefined, who: Who) =>
      run((session) => rename(session, given, label ?? null, who)),
    );

  device
    .command("claim")
    .description("fetch the token that waits after an approval or a rotation; it is stored and not shown")
    .argument("<name>", "a device of this machine")
    .action((name: string) => run((session) => claim(session, name)));

  addWho(device.command("rotate").description("end a device's token and give it another"), "agent")
    .argument("[device]", "its id, or its name on this machine; left out with --device: that one itself")
    .option("--scopes <list>", "of those that were approved", scopeList)
    .action((given: string | undefined, options: Who & { scopes?: Scope[] }) =>
      run((session) => rotate(session, given, options)),
    );

  addWho(device.command("revoke").description("end a device permanently; only a new pairing brings it back"), "agent")
    .argument("<device>", "its id, or its name on this machine")
    .option("--yes", "do not ask", false)
    .action((given: string, options: Who & { yes: boolean }) => run((session) => revoke(session, given, options)));

  addWho(device.command("remove").description("end a device and forget it, here too"), "agent")
    .argument("<device>", "its id, or its name on this machine")
    .option("--yes", "do not ask", false)
    .action((given: string, options: Who & { yes: boolean }) => run((session) => remove(session, given, options)));
};

async function request(session: Session, name: string, options: RequestOptions): Promise<void> {
  const { record: agent, client } = await session.agent();
  const owner = { agentDid: agent.agentDid, baseUrl: agent.baseUrl };
  const here = options.publicKey === undefined ? await keyed(session, name, owner, options.newKey) : null;
  const publicKey = options.publicKey ?? here?.keys.x ?? "";
  const wanted = { publicKey, label: options.label ?? name, scopes: options.scopes };
  const requested = await client.devices.request(wanted);
  if (requested.digest !== (await pairingDigest(wanted))) throw wrongDigest();
  const file = here === null ? null : session.home.devices.path(name);
  await session.output.result({ ...requested, ...wanted, agentDid: agent.agentDid, file }, [
    ...shownRequest({ ...wanted, ...requested }),
    ...(file === null ? [] : [`  file    ${file} (secret: it holds the key)`]),
    "",
    `Until ${timeText(requested.expiresAtMs)} the operator may approve it, and compares the digest:`,
    `  sallyport device approve ${requested.deviceId} --of ${agent.agentDid}`,
    `then, where its key is: sallyport device claim ${name}`,
  ]);
}

async function key(session: Session, name: string, agentDid: string): Promise<void> {
  if (!agentDid.startsWith("did:")) throw usage("--of takes the agent's DID");
  const owner = { agentDid, baseUrl: await session.baseUrl() };
  const { keys, deviceId } = await keyed(session, name, owner, false);
  await session.output.result({ name, agentDid, deviceId, publicKey: keys.x, file: session.home.devices.path(name) }, [
    keys.x,
    "",
    `Where the agent is: sallyport device request NAME --public-key ${keys.x}`,
    `once it is approved, here: sallyport device claim ${name}`,
  ]);
}

/**
 * The device's file, made with a fresh key where there is none. On disk before anything is sent.
 *
 * @param owner the agent, and where it is
 */
async function keyed(
  session: Session,
  name: string,
  owner: { readonly agentDid: string; readonly baseUrl: string },
  newKey: boolean,
): Promise<DeviceRecord> {
  const { devices } = session.home;
  if (!isRecordName(name))
    throw usage("a device's name has 1 to 64 of A-Z a-z 0-9 . _ - and space, and begins with no dot");
  return devices.change(name, async (stored) => {
    if (stored !== null && stored.agentDid !== owner.agentDid) {
      throw new CliError("NAME_TAKEN", `there is a device ${name} of another agent here`, {
        exitCode: EXIT.setup,
        advice: `Take another name, or move its file away: ${devices.path(name)}`,
      });
    }
    if (stored !== null && !newKey) {
      await importKeys(stored.keys);
      return stored;
    }
    const keys = await exportKeys(await generateKeys());
    return { name, ...owner, deviceId: await deviceIdOf(keys.x), keys, token: null, scopes: [], expiresAtMs: null };
  });
}

async function list(session: Session, who: Who): Promise<void> {
  const { devices, agentDid } = await deviceCaller(session, who, "agent");
  const { pending, paired, scopeRequests } = await devices.list();
  const names = new Map((await devicesHere(session, agentDid)).map(({ deviceId, name }) => [deviceId, name]));
  const words = [
    ...(pending.length === 0 ? [] : ["to be approved", ...pendingTable(pending), ""]),
    ...(paired.length === 0 ? ["no devices yet: sallyport device request NAME"] : pairedTable(paired, names)),
  ];
  await session.output.result(
    {
      agentDid,
      pending,
      scopeRequests: scopeRequests ?? [],
      paired: paired.map((each) => ({ ...each, nameHere: names.get(each.deviceId) ?? null })),
    },
    words,
  );
}

function pendingTable(pending: readonly PendingDevice[]): string[] {
  const rows = pending.map(({ requestId, deviceId, label, scopes, digest, expiresAtMs }) => [
    requestId,
    deviceId,
    label ?? "-",
    scopes.join(","),
    digest,
    timeText(expiresAtMs),
  ]);
  return table(["REQUEST", "DEVICE", "LABEL", "SCOPES", "DIGEST", "UNTIL"], rows);
}

function pairedTable(paired: readonly PairedDevice[], names: ReadonlyMap<string, string>): string[] {
  const rows = paired.map(({ deviceId, label, scopes, status, connected, lastUsedAtMs, expiresAtMs }) => [
    deviceId,
    names.get(deviceId) ?? "-",
    label ?? "-",
    scopes.join(","),
    connected === true ? `${status}, connected` : status,
    lastUsedAtMs === null ? "never" : timeText(lastUsedAtMs),
    expiresAtMs === null ? "-" : timeText(expiresAtMs),
  ]);
  return table(["DEVICE", "HERE", "LABEL", "SCOPES", "STATUS", "LAST USED", "TOKEN UNTIL"], rows);
}

async function approve(session: Session, given: string, options: Who & { digest?: string }): Promise<void> {
  const caller = await deviceCaller(session, options, "operator");
  const found = await pendingRequest(session, caller, given);
  // What is shown must be what the digest stands for.
  if (found.digest !== (await pairingDigest(found))) throw wrongDigest();
  if (options.digest === undefined) {
    session.output.remark(shownRequest(found));
    if (!session.interactive)
      throw usage("there is no terminal to ask on: give --digest with the digest that you compared");
    await mustConfirm(session, false, "Is it the same digest there, and shall it be so?");
  } else if (options.digest !== found.digest) {
    throw new CliError("DIGEST_DIFFERS", `the request has another digest: ${found.digest}`, {
      exitCode: EXIT.refused,
      advice: "It is not what you compared, or has changed since. Look at it: `sallyport device list`.",
    });
  }
  const { requestId, digest } = found;
  const approved = await orAdvise(
    caller.devices.approve({ requestId, digest }),
    "It has changed, was answered meanwhile, or asks for more than you hold. No caller approves its own request; the operator can always approve.",
  );
  await session.output.result({ ...approved, requestId, digest }, [
    `approved ${approved.deviceId} for ${approved.scopes.join(", ")}`,
    "next, where its key is: sallyport device claim NAME",
  ]);
}

async function reject(session: Session, given: string, who: Who): Promise<void> {
  const caller = await deviceCaller(session, who, "agent");
  const { requestId, deviceId } = await pendingRequest(session, caller, given);
  await orAdvise(caller.devices.reject(requestId), "It was answered meanwhile: `sallyport device list`.");
  await session.output.result({ requestId, deviceId, rejected: true }, `turned ${deviceId} down`);
}

async function rename(session: Session, given: string, label: string | null, who: Who): Promise<void> {
  const { devices, agentDid } = await deviceCaller(session, who, "agent");
  const { deviceId } = await targetDevice(session, agentDid, given);
  await orAdvise(devices.rename(deviceId, label), "`sallyport device list` shows what there is.");
  await session.output.result({ deviceId, label }, label === null ? "it has no label now" : `it is shown as ${label}`);
}

async function pendingRequest(
  session: Session,
  { devices, agentDid }: DeviceCaller,
  given: string,
): Promise<PendingDevice> {
  const { pending } = await devices.list();
  const here = (await devicesHere(session, agentDid)).find(({ name }) => name === given);
  const found = pending.find(
    ({ requestId, deviceId }) => requestId === given || deviceId === given || deviceId === here?.deviceId,
  );
  if (found !== undefined) return found;
  throw new CliError("NO_REQUEST", `no request ${given} waits, or this caller may not see it`, {
    exitCode: EXIT.refused,
    advice: "A request waits for 5 minutes; ask again: `sallyport device request NAME`.",
  });
}

function shownRequest(shown: {
  deviceId: string;
  publicKey: string;
  scopes: readonly string[];
  label: string | null;
  digest: string;
}): string[] {
  return [
    `device    ${shown.deviceId}`,
    `  label   ${shown.label ?? "-"}`,
    `  scopes  ${shown.scopes.join(", ")}`,
    `  key     ${shown.publicKey}`,
    `  digest  ${shown.digest}`,
  ];
}

function wrongDigest(): CliError {
  return new CliError("DIGEST_WRONG", "the digest does not stand for the key, the scopes and the label", {
    exitCode: EXIT.refused,
    advice: "Do not approve it. Check the address with `sallyport doctor`, and update this command.",
  });
}
