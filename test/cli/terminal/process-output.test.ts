/** Standard output of the real process. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { PROGRAM, temporaryFolder } from "../program.ts";

/** Runs a line of shell in which `$P` is the command. */
async function shell(line: string): Promise<{ code: number; err: string }> {
  const env = { PATH: process.env["PATH"] ?? "", P: PROGRAM, SALLYPORT_HOME: await temporaryFolder() };
  const child = spawn("sh", ["-c", line], { env, stdio: ["ignore", "ignore", "pipe"] });
  let err = "";
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, "close")) as [number];
  return { code, err };
}

test.skipIf(!existsSync("/dev/full"))(
  "output that cannot be written is a failure with a code, not a crash",
  async () => {
    const { code, err } = await shell('"$P" agent list > /dev/full');
    expect(code).toBe(3);
    expect(err).toMatch(/^sallyport: standard output cannot be written: .*ENOSPC.* \(OUTPUT\)\n$/);
  },
);

test("a reader that is gone is no failure", async () => {
  expect(await shell('{ "$P" --help; echo "$?" >&2; } | true')).toMatchObject({ err: "0\n" });
});
