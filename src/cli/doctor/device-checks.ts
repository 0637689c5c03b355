/** What `doctor` looks at in each device of this machine. */
import { createDeviceClient, deviceIdOf, importKeys } from "../../client/index.ts";
import { adviceForEndedDevice } from "../devices/token.ts";
import type { DeviceRecord } from "../storage/device-files.ts";
import { failed, type Finding, finding, ok } from "./finding.ts";
import { timeText } from "../terminal/output.ts";
import { deviceOptions, type Session } from "../session/session.ts";

const EXPIRES_SOON_MS = 7 * 86_400_000;

/** @param isReached whether the server answers */
export async function* devicesCheckup(session: Session, isReached: boolean): AsyncGenerator<Finding> {
  for (const name of await session.home.devices.names()) yield* device(session, name, isReached);
}

async function* device(session: Session, name: string, isReached: boolean): AsyncGenerator<Finding> {
  const check = `device ${name}`;
  let record: DeviceRecord | null;
  try {
    record = await session.home.devices.get(name);
    if (record === null) return;
    await importKeys(record.keys);
    if ((await deviceIdOf(record.keys.x)) !== record.deviceId) {
      yield finding(
        `${check}: key`,
        "fail",
        "its id is of another key",
        `Pair anew: \`sallyport device request ${name} --new-key\`.`,
      );
      return;
    }
    yield ok(`${check}: key`, session.home.devices.path(name));
  } catch (error) {
    yield failed(`${check}: key`, error);
    return;
  }
  if (record.token === null) {
    const advice = `Once it is approved: \`sallyport device claim ${name}\`.`;
    yield finding(`${check}: token`, "warn", "it has none", advice);
  } else if (!isReached) yield finding(`${check}: token`, "skip", "the server was not reached");
  else yield await token(session, record);
}

async function token(session: Session, record: DeviceRecord): Promise<Finding> {
  const check = `device ${record.name}: token`;
  try {
    const client = createDeviceClient(await deviceOptions(session, record));
    const { paired } = await client.devices.list();
    const expiresAtMs = paired.find(({ deviceId }) => deviceId === record.deviceId)?.expiresAtMs ?? null;
    if (expiresAtMs === null) return ok(check, "accepted");
    const detail = `accepted; good until ${timeText(expiresAtMs)}`;
    return expiresAtMs - Date.now() < EXPIRES_SOON_MS
      ? finding(check, "warn", detail, adviceForEndedDevice(record.name, "expired"))
      : ok(check, detail);
  } catch (error) {
    return failed(check, error);
  }
}
