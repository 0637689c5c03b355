/**
 * The process that serves the program, as `npm run serve` does: a process of its own, so that it and its workerd can be killed as
 * one group.
 */
import { readFileSync } from "node:fs";
import { openHost } from "../../../scripts/self-hosted/host.ts";
import { OPERATOR_TOKEN } from "./agents.ts";

/** What the driver hands over, as JSON in the one argument. */
export type HostPlan = {
  bundle: string;
  stateDir: string;
  port: number;
  settings: Record<string, string>;
  /** Whether every line of the log is handed on, not warnings and errors alone. */
  isVerbose: boolean;
};

/** What the driver may ask over the channel: one statement of SQL on D1, or a new workerd in the place of one that was killed. */
export type HostQuery = { kind: "query"; id: number; sql: string } | { kind: "revive" };
export type HostAnswer =
  | { kind: "ready" }
  | { kind: "line"; level: string; line: string }
  | { kind: "rows"; id: number; rows: Record<string, unknown>[]; error?: string };

const plan = JSON.parse(process.argv[2] ?? "{}") as HostPlan;
const say = (answer: HostAnswer): void => void process.send?.(answer);

const secrets = { OPERATOR_TOKEN, REGISTRY_SIGNING_SECRET: "signing-secret-of-the-tests-0123456789abcdef" };

/** Where V8 can be asked about memory; a driver that wants to ask says so in the environment. */
const inspectorPort = process.env["SALLYPORT_INSPECTOR_PORT"];

const host = await openHost({
  bundle: () => readFileSync(plan.bundle, "utf8"),
  stateDir: plan.stateDir,
  address: "127.0.0.1",
  port: plan.port,
  settings: { ...secrets, ...plan.settings },
  onLine: (level, line) => {
    if (plan.isVerbose || level === "error" || level === "warn")
      say({ kind: "line", level, line: line.slice(0, 4_000) });
  },
  ...(inspectorPort === undefined ? {} : { inspectorPort: Number(inspectorPort) }),
});

process.on("message", (query: HostQuery) => {
  if (query.kind === "revive") {
    host.revive().then(
      () => say({ kind: "ready" }),
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
    return;
  }
  const { id, sql } = query;
  host.query([{ sql }]).then(
    ([rows = []]) => say({ kind: "rows", id, rows }),
    (error: unknown) => say({ kind: "rows", id, rows: [], error: String(error) }),
  );
});
// Nobody is left to serve.
process.on("disconnect", () => process.exit(0));
say({ kind: "ready" });
