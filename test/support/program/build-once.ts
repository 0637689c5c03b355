/** Runs once before the tests that drive the program from outside: it is bundled here, and each of them serves that bundle. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundled, PROXY, root } from "./bundle.ts";

/** @returns what removes the bundle again */
export default async function buildOnce(): Promise<() => void> {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-bundle-"));
  const path = join(folder, "worker.js");
  const contents = (await bundled(join(root, PROXY))).modules[0]?.contents;
  if (typeof contents !== "string") throw new Error("the bundle is not one script");
  writeFileSync(path, contents);
  // Read by `program.ts`, in the processes that the tests run in.
  process.env["SALLYPORT_BUNDLE"] = path;
  return () => rmSync(folder, { recursive: true, force: true });
}
