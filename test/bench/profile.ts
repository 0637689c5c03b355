/**
 * `node test/bench/profile.ts [--connections N] [--seconds N] [--fan N] [--out FILE]`: where the time of a hook goes. Serves the
 * unminified bundle under load with the runtime's own profiler on, prints the functions that cost most, and keeps the profile
 * for a viewer.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildBundle } from "../support/program/bundle.ts";
import { startLoadProcess } from "./load-process.ts";
import { serveProxy } from "./serve.ts";

type ProfileNode = {
  id: number;
  callFrame: { functionName: string; url: string; lineNumber: number };
  children?: number[];
};
type Profile = { nodes: ProfileNode[]; samples: number[]; timeDeltas: number[]; startTime: number; endTime: number };

const SAMPLE_EVERY_US = 200;
const ROWS = 45;

const { values } = parseArgs({
  options: {
    connections: { type: "string", default: "16" },
    seconds: { type: "string", default: "5" },
    fan: { type: "string", default: "1" },
    out: { type: "string" },
  },
});
const out = values.out ?? join(mkdtempSync(join(tmpdir(), "sallyport-profile-")), "hook.cpuprofile");
const seconds = Number(values.seconds);

const bundle = await buildBundle(mkdtempSync(join(tmpdir(), "sallyport-bundle-")));
const proxy = await serveProxy(bundle, {}, { inspect: true });
const load = startLoadProcess();
await load.prepare({ url: proxy.url, senders: 16, recipients: 16, fan: Number(values.fan), connect: true });
const plan = { url: proxy.url, connections: Number(values.connections), expected: 202, deliver: true };
await load.sign({ count: 4_000 });
await load.run({ ...plan, seconds: 2 });
await load.sign({ count: 2_000 * seconds });

const inspector = await openInspector(await proxy.inspectorUrl());
await inspector.ask("Profiler.enable");
await inspector.ask("Profiler.setSamplingInterval", { interval: SAMPLE_EVERY_US });
await inspector.ask("Profiler.start");
const figures = await load.run({ ...plan, seconds });
const { profile } = (await inspector.ask("Profiler.stop")) as { profile: Profile };
inspector.close();
await load.stop();
await proxy.stop();

writeFileSync(out, JSON.stringify(profile));
report(profile, figures.accepted);
console.log(`\n${figures.acceptedPerSecond.toFixed(0)} messages a second under the profiler; profile: ${out}`);

async function openInspector(
  url: URL,
): Promise<{ ask(method: string, params?: unknown): Promise<unknown>; close(): void }> {
  const listed = (await (await fetch(new URL("/json", url.href.replace("ws:", "http:")))).json()) as {
    id: string;
    webSocketDebuggerUrl: string;
  }[];
  const target =
    listed.find(({ id, webSocketDebuggerUrl }) => `${id} ${webSocketDebuggerUrl}`.includes("sallyport")) ?? listed[0];
  if (target === undefined) throw new Error("the runtime has no inspector");
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let lastId = 0;
  socket.addEventListener("message", ({ data }) => {
    const { id, result, error } = JSON.parse(String(data)) as {
      id?: number;
      result?: unknown;
      error?: { message: string };
    };
    const asked = id === undefined ? undefined : waiting.get(id);
    if (asked === undefined || id === undefined) return;
    waiting.delete(id);
    if (error === undefined) asked.resolve(result);
    else asked.reject(new Error(error.message));
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("error", () => reject(new Error("the inspector did not answer")));
  });
  return {
    ask: (method, params = {}) =>
      new Promise((resolve, reject) => {
        lastId += 1;
        waiting.set(lastId, { resolve, reject });
        socket.send(JSON.stringify({ id: lastId, method, params }));
      }),
    close: () => socket.close(),
  };
}

/** Self and total time of each function, for one message. */
function report({ nodes, samples, timeDeltas }: Profile, messages: number): void {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map<number, number>();
  for (const { id, children } of nodes) for (const child of children ?? []) parents.set(child, id);
  const selfUs = new Map<string, number>();
  const totalUs = new Map<string, number>();
  for (const [index, id] of samples.entries()) {
    const us = timeDeltas[index] ?? 0;
    const node = byId.get(id);
    if (node === undefined) continue;
    add(selfUs, nameOf(node), us);
    const onStack = new Set<string>();
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const above = byId.get(at);
      if (above !== undefined) onStack.add(nameOf(above));
    }
    for (const name of onStack) add(totalUs, name, us);
  }
  console.log("   self µs  total µs  per message");
  for (const [name, us] of [...selfUs].toSorted((a, b) => b[1] - a[1]).slice(0, ROWS)) {
    const total = totalUs.get(name) ?? 0;
    console.log(`${(us / messages).toFixed(1).padStart(10)}${(total / messages).toFixed(1).padStart(10)}  ${name}`);
  }
}

function add(to: Map<string, number>, name: string, us: number): void {
  to.set(name, (to.get(name) ?? 0) + us);
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: ProfileNode): string {
  const file = url.slice(url.lastIndexOf("/") + 1);
  return `${functionName === "" ? "(anonymous)" : functionName}${file === "" ? "" : ` ${file}:${lineNumber + 1}`}`;
}
