/**
 * A strict reader of OpenMetrics text 1.0.0 that shares no code with the writer: it refuses what the standard forbids
 * and gives back the families with their samples.
 */
export type Sample = { name: string; labels: Record<string, string>; value: number };
export type Family = { name: string; type: string; unit: string; help: string; samples: Sample[] };

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const NUMBER = /^(?:[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN)$/;
const SUFFIXES: Record<string, string[]> = {
  counter: ["_total", "_created"],
  gauge: [""],
  histogram: ["_bucket", "_count", "_sum", "_created"],
  unknown: [""],
};

/** @throws Error with the line that breaks a rule */
export function parseOpenMetrics(text: string): Map<string, Family> {
  if (!text.endsWith("# EOF\n")) throw new Error("must end with # EOF and a line feed");
  if (text.includes("\r")) throw new Error("lines end with a line feed alone");
  const lines = text.slice(0, -1).split("\n");
  const families = new Map<string, Family>();
  let current: Family | null = null;
  let metadataSeen = new Set<string>();
  lines.forEach((line, index) => {
    const refuse = (why: string): never => {
      throw new Error(`line ${index + 1}: ${why}: ${line}`);
    };
    if (line === "# EOF") {
      if (index !== lines.length - 1) refuse("something follows the end");
      return;
    }
    if (line === "") refuse("an empty line");
    if (line.startsWith("#")) {
      const match = /^# (TYPE|UNIT|HELP) (\S+) (.*)$/.exec(line) ?? refuse("no metadata");
      const [, keyword = "", name = "", rest = ""] = match;
      if (!NAME.test(name)) refuse("a bad name");
      if (current?.name !== name) {
        if (families.has(name)) refuse("a family is split or repeated");
        current = { name, type: "unknown", unit: "", help: "", samples: [] };
        families.set(name, current);
        metadataSeen = new Set();
      }
      if (current.samples.length > 0) refuse("metadata after samples");
      if (metadataSeen.has(keyword)) refuse("metadata repeated");
      metadataSeen.add(keyword);
      if (keyword === "TYPE") current.type = SUFFIXES[rest] === undefined ? refuse("an unknown type") : rest;
      if (keyword === "UNIT") {
        if (rest !== "" && !name.endsWith(`_${rest}`)) refuse("the unit is not the end of the name");
        current.unit = rest;
      }
      if (keyword === "HELP") {
        if (/\\[^\\n"]|(?<!\\)"/.test(rest.replaceAll("\\\\", ""))) refuse("a bad escape");
        current.help = rest;
      }
      return;
    }
    const sample = parseSample(line, refuse);
    const family: Family = current ?? refuse("a sample before its family");
    const suffix = sample.name.startsWith(family.name)
      ? sample.name.slice(family.name.length)
      : refuse("a sample of another family");
    if (!(SUFFIXES[family.type] ?? []).includes(suffix)) refuse(`suffix ${suffix} on a ${family.type}`);
    const key = identityOf(sample.name, sample.labels);
    if (family.samples.some((other) => identityOf(other.name, other.labels) === key)) {
      refuse("a sample repeated");
    }
    if (family.type === "counter" && !(sample.value >= 0)) refuse("a counter below nought");
    if (suffix === "_bucket" && sample.labels["le"] === undefined) refuse("a bucket without a bound");
    family.samples.push(sample);
  });
  for (const family of families.values()) if (family.type === "histogram") checkHistogram(family);
  return families;
}

function parseSample(line: string, refuse: (why: string) => never): Sample {
  const head = /^([a-zA-Z_:][a-zA-Z0-9_:]*)/.exec(line)?.[1] ?? refuse("no name");
  let rest = line.slice(head.length);
  const labels: Record<string, string> = {};
  if (rest.startsWith("{")) {
    rest = rest.slice(1);
    while (!rest.startsWith("}")) {
      const match = /^([^=,{}"]+)="((?:[^"\\\n]|\\[\\n"])*)"(,?)/.exec(rest) ?? refuse("bad labels");
      const [whole, name = "", value = "", comma] = match;
      if (!LABEL_NAME.test(name) || name.startsWith("__")) refuse("a bad label name");
      if (name in labels) refuse("a label repeated");
      labels[name] = value.replace(/\\(.)/g, (_, each: string) => (each === "n" ? "\n" : each));
      rest = rest.slice(whole.length);
      if (comma === "" && !rest.startsWith("}")) refuse("labels without a comma");
      if (comma === "," && rest.startsWith("}")) refuse("a trailing comma");
    }
    rest = rest.slice(1);
  }
  const value = /^ (\S+)$/.exec(rest)?.[1] ?? refuse("one blank and one value");
  if (!NUMBER.test(value)) refuse("no number");
  return { name: head, labels, value: value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value) };
}

/** Buckets ascend, end in infinity, and agree with the count; sum and count stand beside each other. */
function checkHistogram({ name, samples }: Family): void {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const { le: _le, ...others } = sample.labels;
    const key = identityOf(name, others);
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const [key, group] of groups) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => (labels["le"] === "+Inf" ? Infinity : Number(labels["le"])));
    if (bounds.at(-1) !== Infinity) throw new Error(`${name}${key}: the last bucket is not +Inf`);
    for (let index = 1; index < buckets.length; index++) {
      if (!((bounds[index] ?? 0) > (bounds[index - 1] ?? 0))) throw new Error(`${name}${key}: bounds do not ascend`);
      if ((buckets[index]?.value ?? 0) < (buckets[index - 1]?.value ?? 0))
        throw new Error(`${name}${key}: buckets are not cumulative`);
    }
    const counts = group.filter((sample) => sample.name === `${name}_count`);
    const sums = group.filter((sample) => sample.name === `${name}_sum`);
    if (counts.length !== 1 || sums.length !== 1) throw new Error(`${name}${key}: one count and one sum`);
    if (counts[0]?.value !== buckets.at(-1)?.value) throw new Error(`${name}${key}: the count is not the last bucket`);
  }
}

/** The value of one sample, or undefined. */
export function valueOf(
  families: Map<string, Family>,
  sample: string,
  labels: Record<string, string> = {},
): number | undefined {
  for (const family of families.values()) {
    for (const each of family.samples) {
      const fits = Object.entries(labels).every(([name, value]) => each.labels[name] === value);
      if (each.name === sample && fits) return each.value;
    }
  }
  return undefined;
}

/** Labels have no order. */
function identityOf(name: string, labels: Record<string, string>): string {
  return JSON.stringify([name, Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1))]);
}
