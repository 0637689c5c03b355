/** What kind of disk it is: what saving a commit is worth depends on how long one takes. */
import { closeSync, fsyncSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

const BYTES = Buffer.alloc(4_096, 1);

/**
 * Writes 4 KiB and waits until they are on disk, so many times.
 *
 * @returns how long each took, in milliseconds
 */
export function fsyncsMs(dir: string, count: number): number[] {
  const path = join(dir, "fsync");
  const file = openSync(path, "w");
  const tookMs = Array.from({ length: count }, () => {
    writeSync(file, BYTES);
    const beganAtMs = performance.now();
    fsyncSync(file);
    return performance.now() - beganAtMs;
  });
  closeSync(file);
  rmSync(path);
  return tookMs;
}
