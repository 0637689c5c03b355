/** OpenFGA and SpiceDB themselves, on free ports of this machine, for tests of the remote graph. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../support/program/bundle.ts";
import { freePort } from "../support/program/ports.ts";

export type EngineName = "openfga" | "spicedb";
export type Engine = {
  /** The address of its HTTP API. */
  url: string;
  /** `AUTHZ_GRAPH`, once the model is written. */
  setting: string;
  /** One call of its API. */
  ask(path: string, body: unknown): Promise<{ status: number; body: Record<string, unknown> }>;
  /** Deletes every tuple in it, as if it had been started anew. */
  empty(): Promise<void>;
  /** Ends it; what it had in memory is gone. */
  stop(): Promise<void>;
};

export const ENGINE_TOKEN = "engine-token-of-the-tests-0123456789abcdef";
const ENGINES = join(root, "scripts/engines.sh");
const READY_WITHIN_MS = 60_000;

/** Whether the engines are there: `sh scripts/engines.sh` installs them. In CI they have to be, and are not passed by. */
export function hasEngines(): boolean {
  return process.env["CI"] !== undefined || spawnSync("sh", [ENGINES, "built"]).status === 0;
}

/** The program's path. */
function program(name: EngineName): string {
  return execFileSync("sh", [ENGINES, name], { encoding: "utf8" }).trim();
}

/** Starts an engine with an empty datastore and this product's model in it. */
export async function startEngine(name: EngineName): Promise<Engine> {
  const [http, grpc, other] = [await freePort(), await freePort(), await freePort()];
  const url = `http://127.0.0.1:${http}`;
  const child = spawn(program(name), argumentsOf(name, { http, grpc, other }), {
    stdio: "ignore",
    cwd: mkdtempSync(join(tmpdir(), "engine-")),
  });
  const ask: Engine["ask"] = async (path, body) => {
    const response = await fetch(url + path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${ENGINE_TOKEN}` },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    return {
      status: response.status,
      body: text === "" ? {} : (JSON.parse(text.split("\n")[0] ?? "") as Record<string, unknown>),
    };
  };
  try {
    const setting = await whenReady(child, () => setUp(name, url, ask));
    return { url, setting, ask, empty: () => emptied(name, setting, ask), stop: () => ended(child) };
  } catch (error) {
    await ended(child);
    throw error;
  }
}

function argumentsOf(name: EngineName, { http, grpc, other }: Record<"http" | "grpc" | "other", number>): string[] {
  if (name === "openfga") {
    return [
      "run",
      "--datastore-engine=memory",
      `--http-addr=127.0.0.1:${http}`,
      `--grpc-addr=127.0.0.1:${grpc}`,
      "--playground-enabled=false",
      "--metrics-enabled=false",
      "--log-level=error",
      "--authn-method=preshared",
      `--authn-preshared-keys=${ENGINE_TOKEN}`,
    ];
  }
  return [
    "serve",
    "--datastore-engine=memory",
    "--http-enabled",
    `--http-addr=127.0.0.1:${http}`,
    `--grpc-addr=127.0.0.1:${grpc}`,
    `--metrics-addr=127.0.0.1:${other}`,
    `--grpc-preshared-key=${ENGINE_TOKEN}`,
    "--telemetry-endpoint=",
    "--skip-release-check",
    "--log-level=error",
  ];
}

/** Writes the model. @returns what `AUTHZ_GRAPH` is then */
async function setUp(name: EngineName, url: string, ask: Engine["ask"]): Promise<string> {
  const model = (file: string): string => readFileSync(join(root, "src/authz", file), "utf8");
  if (name === "spicedb") {
    const written = await ask("/v1/schema/write", { schema: model("model.zed") });
    if (written.status !== 200) throw new Error(JSON.stringify(written));
    return `spicedb+${url}`;
  }
  const store = await ask("/stores", { name: "sallyport" });
  const path = `/stores/${String(store.body["id"])}`;
  const written = await ask(`${path}/authorization-models`, JSON.parse(model("model.json")));
  if (written.status !== 201) throw new Error(JSON.stringify(written));
  return `openfga+${url}${path}`;
}

async function emptied(name: EngineName, setting: string, ask: Engine["ask"]): Promise<void> {
  if (name === "spicedb") {
    for (const resourceType of ["task", "agent", "tenant", "group"]) {
      // oxlint-disable-next-line no-await-in-loop -- type after type
      await ask("/v1/relationships/delete", { relationshipFilter: { resourceType } });
    }
    return;
  }
  const store = new URL(setting.replace("openfga+", "")).pathname;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- page after page
    const { body } = await ask(`${store}/read`, { page_size: 100 });
    const keys = (body["tuples"] as { key: { user: string; relation: string; object: string } }[]).map(({ key }) => ({
      user: key.user,
      relation: key.relation,
      object: key.object,
    }));
    if (keys.length === 0) return;
    // oxlint-disable-next-line no-await-in-loop -- as above
    await ask(`${store}/write`, { deletes: { tuple_keys: keys } });
  }
}

/** Tries until it answers. */
async function whenReady<T>(child: ChildProcess, attempt: () => Promise<T>): Promise<T> {
  const endsAtMs = Date.now() + READY_WITHIN_MS;
  for (;;) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- until it is there
      return await attempt();
    } catch (error) {
      if (Date.now() > endsAtMs || child.exitCode !== null) throw error;
    }
    // oxlint-disable-next-line no-await-in-loop -- a pause between two attempts
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}
