/** The program as one script: as it would be deployed, built by the tool that deploys it, or in less time. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

export const root = join(import.meta.dirname, "../../..");

export type BundledModule = {
  type: "ESModule" | "Text" | "Data" | "CompiledWasm";
  path: string;
  contents: string | Uint8Array<ArrayBuffer>;
};
export type Bundle = { modules: BundledModule[]; modulesRoot: string };

/**
 * Builds a Worker with `wrangler deploy --dry-run`.
 *
 * @param entry another entry than the one in `wrangler.toml`, relative to the project
 */
export async function buildBundle(outDir: string, options: { minify?: boolean; entry?: string } = {}): Promise<Bundle> {
  const args = ["deploy", ...(options.entry === undefined ? [] : [options.entry]), "--dry-run", "--outdir", outDir];
  if (options.minify === true) args.push("--minify");
  const env = {
    ...process.env,
    CLOUDFLARE_CF_FETCH_ENABLED: "false",
    WRANGLER_SEND_METRICS: "false",
    WRANGLER_LOG_PATH: join(outDir, "logs"),
    CI: "true",
  };
  await promisify(execFile)(join(root, "node_modules/.bin/wrangler"), args, { cwd: root, env });
  const names = readdirSync(outDir).filter((name) => moduleType(name) !== null);
  // The entry comes first.
  names.sort((a, b) => Number(isScript(b)) - Number(isScript(a)));
  const modules = names.map((name): BundledModule => {
    const path = join(outDir, name);
    const type = moduleType(name) ?? "Data";
    return {
      type,
      path,
      contents:
        type === "ESModule" || type === "Text" ? readFileSync(path, "utf8") : new Uint8Array(readFileSync(path)),
    };
  });
  return { modules, modulesRoot: outDir };
}

/** The proxy as it would be deployed. */
export const PROXY = "src/worker.ts";
/** That, or the proxy with something of the bench's own in it. */
export type BuiltWorker = typeof PROXY | `test/bench/worker/${"counted" | "grown" | "instrumented" | "stages"}.ts`;

/** @param worker its entry, relative to the project */
export async function buildWorker(worker: BuiltWorker): Promise<Bundle> {
  if (worker !== PROXY) return bundled(join(root, worker));
  const outDir = mkdtempSync(join(tmpdir(), "sallyport-bundle-"));
  const { modules, modulesRoot } = await buildBundle(outDir, { entry: worker });
  rmSync(outDir, { recursive: true, force: true });
  return { modules, modulesRoot };
}

/** A Worker of the bench's own that imports nothing of the proxy. */
export async function plainWorker(file: string): Promise<Bundle> {
  return bundled(join(root, "test/bench/worker", file));
}

/**
 * A Worker bundled as wrangler does it, in a tenth of the time.
 *
 * @param entry the path of its entry
 */
export async function bundled(entry: string): Promise<Bundle> {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "esm",
    target: "esnext",
    keepNames: true,
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*", "node:*"],
  });
  const contents = outputFiles[0]?.text ?? "";
  return {
    modules: [{ type: "ESModule", path: entry.replace(/\.ts$/, ".js"), contents }],
    modulesRoot: dirname(entry),
  };
}

/** Bytes of everything that is uploaded, as it is and compressed. */
export function sizeOf(bundle: Bundle): { bytes: number; gzipBytes: number } {
  const contents = bundle.modules.map((module) => Buffer.from(module.contents as string));
  return {
    bytes: contents.reduce((sum, part) => sum + part.byteLength, 0),
    gzipBytes: contents.reduce((sum, part) => sum + gzipSync(part).byteLength, 0),
  };
}

function isScript(name: string): boolean {
  return name.endsWith(".js");
}

function moduleType(name: string): BundledModule["type"] | null {
  if (/\.(?:m?js)$/.test(name)) return "ESModule";
  if (/\.(?:txt|html|sql)$/.test(name)) return "Text";
  if (name.endsWith(".wasm")) return "CompiledWasm";
  return name.endsWith(".bin") ? "Data" : null;
}
