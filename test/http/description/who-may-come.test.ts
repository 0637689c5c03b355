/** The table of docs/protocol.md that says which credential may come to which route, against the routes themselves. */
import { expect, test } from "vitest";
import document from "../../../docs/protocol.md?raw";
import { app } from "../../../src/app.ts";
import { methodBehind } from "../../../src/http/routes/method-route.ts";
import { type MethodName, PERMISSIONS } from "../../../src/rpc/permissions.ts";

const NEVER = "—";

function rowOf(route: { method: string; path: string; handler: object }): string[] | null {
  const behind = methodBehind(route.handler);
  if (behind === null) return null;
  const { accepts, access } = behind.needs;
  const { callers, roles, scope } = PERMISSIONS[behind.route.method as MethodName];
  const comes = (kind: "agent" | "device" | "shared" | "operator"): boolean =>
    (accepts as readonly string[]).includes(kind) && (callers as readonly string[]).includes(kind);
  const agent = access === true ? "yes" : access === "if-sent" ? "yes, access token optional" : "without access token";
  const scoped = scope === null ? "yes" : `\`${scope}\``;
  return [
    `\`${route.method} ${route.path}\``,
    comes("agent") ? agent : NEVER,
    comes("device") ? scoped : NEVER,
    comes("shared") ? scoped : NEVER,
    comes("operator") ? roles.join(", ") : NEVER,
  ];
}

test("the table of who may come to which route is what the routes say", () => {
  const rows = app.routes.map(rowOf).filter((row) => row !== null);
  const documented = document
    .split("\n")
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .filter((cells) => cells.length === 7 && /^`(?:GET|POST|DELETE) [^`]+`$/.test(cells[1] ?? ""))
    .map((cells) => cells.slice(1, -1));
  expect(rows.length).toBeGreaterThan(20);
  const inOrder = (cells: string[][]): string[] => cells.map((row) => row.join(" | ")).toSorted();
  expect(inOrder(documented)).toEqual(inOrder(rows));
});
