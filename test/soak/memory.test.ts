import { convertV4MiniflareOptions, Miniflare, NoOpLog } from "miniflare";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../support/program/ports.ts";
import { type MemoryProbe, openMemoryProbe } from "./memory.ts";

/** Makes `?mib=` of short strings, and keeps them when asked to. */
const script = `
const kept = [];
export default {
  fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    const made = [];
    for (let left = Number(searchParams.get("mib")) * 1_048_576; left > 0; left -= 1_024)
      made.push(String.fromCharCode(97 + Math.random() * 26).repeat(1_024).toUpperCase());
    if (pathname === "/keep") kept.push(made);
    return new Response(String(made.length));
  },
};`;
const MEBIBYTE = 1_048_576;

describe("what a process holds", () => {
  let miniflare: Miniflare;
  let probe: MemoryProbe;
  const ask = async (path: string): Promise<void> => {
    await (await miniflare.dispatchFetch(`http://localhost${path}`)).text();
  };

  beforeAll(async () => {
    const inspectorPort = await freePort();
    miniflare = new Miniflare(
      convertV4MiniflareOptions({
        log: new NoOpLog(),
        cf: false,
        inspectorPort,
        workers: [{ name: "sallyport", modules: true, script, compatibilityDate: "2026-10-01" }],
      }),
    );
    await miniflare.ready;
    await ask("/litter?mib=1");
    probe = await openMemoryProbe(inspectorPort);
  });

  afterAll(async () => {
    probe.close();
    await miniflare.dispose();
  });

  test("is the same after a lot of garbage, and more after something was kept", async () => {
    const before = await sampled();
    await ask("/litter?mib=24");
    const littered = await sampled();
    await ask("/keep?mib=8");
    const kept = await sampled();

    expect(littered.heapBytes - before.heapBytes).toBeLessThan(MEBIBYTE);
    expect(kept.heapBytes - littered.heapBytes).toBeGreaterThan(7 * MEBIBYTE);
    if (before.privateBytes === null || kept.privateBytes === null) return;
    expect(kept.privateBytes - before.privateBytes).toBeGreaterThan(4 * MEBIBYTE);
  });

  /** With a request meanwhile: an isolate at rest does not collect. */
  async function sampled(): Promise<{ heapBytes: number; privateBytes: number | null }> {
    const sampling = probe.sample();
    let isDone = false;
    const sample = sampling.finally(() => (isDone = true));
    // oxlint-disable-next-line no-await-in-loop -- until it has been answered
    while (!isDone) await ask("/litter?mib=0");
    return sample;
  }
});
