/**
 * What the program's process holds once nothing is left that could be collected. V8 is in no hurry: an isolate that makes
 * little garbage is not collected for many minutes, and each small object in it may hold a large one outside its heap. So
 * what the system says of a process that was not asked to collect tells how lazy its collector is, and not what is kept.
 */
import { readdirSync, readFileSync } from "node:fs";

/** The program's isolate always runs, since it is under load; the others may be at rest. */
const PROGRAM_WITHIN_MS = 10_000;
const OTHERS_WITHIN_MS = 2_000;
/** Where the program itself runs; the other isolates are the database and the local harness around it. */
const PROGRAM = "core:user:sallyport";

export type Memory = {
  /** What the process has to itself: heaps, and everything that was allocated outside them, without its files. Null where the system does not say. */
  privateBytes: number | null;
  /** Live objects on the program's own heap. */
  heapBytes: number;
};

export type MemoryProbe = {
  /** Has everything collected that runs, and looks. */
  sample(): Promise<Memory>;
  close(): void;
};

/** @param inspectorPort of the workerd that this process has started */
export async function openMemoryProbe(inspectorPort: number): Promise<MemoryProbe> {
  const answer = await fetch(`http://127.0.0.1:${inspectorPort}/json`);
  const targets = (await answer.json()) as { id: string; webSocketDebuggerUrl: string }[];
  const isolates = await Promise.all(
    targets.map(({ id, webSocketDebuggerUrl }) => openIsolate(id, webSocketDebuggerUrl)),
  );
  const program = isolates.find(({ id }) => id.endsWith(PROGRAM));
  if (program === undefined) throw new Error(`no isolate is the program's: ${isolates.map(({ id }) => id).join(", ")}`);
  const pid = workerd();
  return {
    async sample() {
      await Promise.all(
        isolates.map((isolate) => isolate.collect(isolate === program ? PROGRAM_WITHIN_MS : OTHERS_WITHIN_MS)),
      );
      const { usedSize } = (await program.ask("Runtime.getHeapUsage")) as { usedSize: number };
      return { privateBytes: pid === null ? null : privateBytes(pid), heapBytes: usedSize };
    },
    close() {
      for (const isolate of isolates) isolate.close();
    },
  };
}

type Isolate = {
  id: string;
  ask(method: string): Promise<unknown>;
  /** An isolate at rest collects when it next runs, and until then it makes no garbage either: it is not waited for. */
  collect(withinMs: number): Promise<void>;
  close(): void;
};

async function openIsolate(id: string, url: string): Promise<Isolate> {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", () => reject(new Error(`the inspector of ${id} does not answer`)));
  });
  let asked = 0;
  const waiting = new Map<number, (result: unknown) => void>();
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(String(data)) as { id?: number; result?: unknown };
    if (message.id === undefined) return;
    waiting.get(message.id)?.(message.result);
    waiting.delete(message.id);
  });
  const ask = (method: string): Promise<unknown> =>
    new Promise((resolve) => {
      waiting.set((asked += 1), resolve);
      socket.send(JSON.stringify({ id: asked, method }));
    });
  let collecting: Promise<unknown> | null = null;
  return {
    id,
    ask,
    async collect(withinMs) {
      collecting ??= ask("HeapProfiler.collectGarbage").then(() => (collecting = null));
      await Promise.race([collecting, timeout(withinMs)]);
    },
    close: () => socket.close(),
  };
}

const timeout = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

/** The workerd below this process. Linux alone says it; elsewhere there is none. */
function workerd(): number | null {
  const parents = new Map<number, number>();
  const found: number[] = [];
  for (const name of processes()) {
    const stat = read(`/proc/${name}/stat`);
    const [, parent] = /\) \S (\d+)/.exec(stat) ?? [];
    parents.set(Number(name), Number(parent));
    if (stat.includes("(workerd)")) found.push(Number(name));
  }
  const isOurs = (pid: number | undefined): boolean =>
    pid !== undefined && (pid === process.pid || isOurs(parents.get(pid)));
  return found.find((pid) => isOurs(pid)) ?? null;
}

function processes(): string[] {
  return process.platform === "linux" ? readdirSync("/proc").filter((name) => /^\d+$/.test(name)) : [];
}

function privateBytes(pid: number): number {
  const [, kilobytes] = /^Anonymous:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`)) ?? [];
  return Number(kilobytes ?? 0) * 1_024;
}

/** Of a process that has ended meanwhile there is nothing to read. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ESRCH") throw error;
    return "";
  }
}
