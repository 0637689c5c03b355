/**
 * Simulates the busiest object and writes its numbers and its plot into docs/. Service times are those that were measured;
 * another machine's go in by flags.
 *
 *   node test/scale/simulate.ts [--message-ms 0.35] [--commit-ms 0.5]
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRandom } from "../faults/random.ts";
import { type Load, simulate } from "./queue.ts";

const { values } = parseArgs({
  options: { "message-ms": { type: "string", default: "0.35" }, "commit-ms": { type: "string", default: "0.5" } },
});
const [messageMs, commitMs] = [Number(values["message-ms"]), Number(values["commit-ms"])];
const docs = join(import.meta.dirname, "../../docs");
const RATES = [10, 50, 100, 200, 400, 600, 800, 1_000, 1_200, 1_400, 1_600, 1_800, 2_000, 2_200, 2_400, 2_600, 2_800];
const FOR_MS = 60_000;

const CASES = [
  { name: "a commit each, single messages", isGrouped: false, burst: 1, color: "#b5482f", dash: "" },
  { name: "a commit each, bursts of 20", isGrouped: false, burst: 20, color: "#b5482f", dash: "6 4" },
  { name: "group commit, single messages", isGrouped: true, burst: 1, color: "#2f6db5", dash: "" },
  { name: "group commit, bursts of 20", isGrouped: true, burst: 20, color: "#2f6db5", dash: "6 4" },
] as const;

const results = CASES.map(({ name, isGrouped, burst, ...line }) => ({
  name,
  ...line,
  loads: RATES.map((perSecond) =>
    simulate({ messageMs, commitMs, isGrouped }, { perSecond, burst }, FOR_MS, createRandom(perSecond + burst)),
  ),
}));

writeFileSync(
  join(docs, "busiest-object.json"),
  `${JSON.stringify({ messageMs, commitMs, simulatedSeconds: FOR_MS / 1_000, cases: results.map(({ name, loads }) => ({ name, loads: loads.map(rounded) })) }, null, 2)}\n`,
);
writeFileSync(join(docs, "busiest-object.svg"), plot());
for (const { name, loads } of results) {
  const last = loads.findLast(({ isStable, p99Ms }) => isStable && p99Ms < 100);
  console.log(
    `${name}: p99 below 100 ms up to ${last?.perSecond ?? 0}/s (p99 ${last?.p99Ms.toFixed(1)} ms, ${last?.perCommit.toFixed(1)} a commit)`,
  );
}

function rounded(load: Load): Load {
  const round = (value: number): number => Number(value.toFixed(2));
  return {
    ...load,
    p50Ms: round(load.p50Ms),
    p99Ms: round(load.p99Ms),
    busy: round(load.busy),
    perCommit: round(load.perCommit),
  };
}

/** Rate against p99, the latter in powers of ten. */
function plot(): string {
  const [width, height, left, bottom, top] = [760, 420, 60, 50, 20];
  const [xMax, yMin, yMax] = [RATES.at(-1) ?? 1, 0.5, 1_000];
  const x = (rate: number): number => left + (rate / xMax) * (width - left - 20);
  const y = (ms: number): number =>
    top +
    (1 - Math.log10(Math.min(yMax, Math.max(yMin, ms)) / yMin) / Math.log10(yMax / yMin)) * (height - top - bottom);
  const lines = results.map(({ color, dash, loads }) => {
    const points = loads
      .filter(({ isStable }) => isStable)
      .map(({ perSecond, p99Ms }) => `${x(perSecond).toFixed(1)},${y(p99Ms).toFixed(1)}`);
    return `<polyline fill="none" stroke="${color}" stroke-width="2"${dash === "" ? "" : ` stroke-dasharray="${dash}"`} points="${points.join(" ")}"/>`;
  });
  const legend = results.map(
    ({ name, color, dash }, index) =>
      `<line x1="${left + 14}" x2="${left + 44}" y1="${top + 12 + index * 18}" y2="${top + 12 + index * 18}" stroke="${color}" stroke-width="2"${dash === "" ? "" : ` stroke-dasharray="${dash}"`}/><text x="${left + 52}" y="${top + 16 + index * 18}">${name}</text>`,
  );
  const grid = [1, 10, 100, 1_000].map(
    (ms) =>
      `<line x1="${left}" x2="${width - 20}" y1="${y(ms)}" y2="${y(ms)}" stroke="#ddd"/><text x="${left - 8}" y="${y(ms) + 4}" text-anchor="end">${ms}</text>`,
  );
  const ticks = RATES.filter((rate) => rate % 400 === 0).map(
    (rate) => `<text x="${x(rate)}" y="${height - bottom + 18}" text-anchor="middle">${rate}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="#fff"/>
${grid.join("\n")}
${ticks.join("\n")}
<text x="${(left + width) / 2}" y="${height - 10}" text-anchor="middle">messages a second into one gate</text>
<text transform="translate(16 ${height / 2}) rotate(-90)" text-anchor="middle">p99 of the gate's part of a 202, ms</text>
${lines.join("\n")}
${legend.join("\n")}
</svg>
`;
}
