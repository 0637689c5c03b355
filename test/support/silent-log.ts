/** A log for what is under test where the test does not look at it. */
import type { Log } from "../../src/telemetry/log.ts";

export const silentLog: Log = { info() {}, warn() {}, error() {}, with: () => silentLog };
