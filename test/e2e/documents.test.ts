/** The documents lead somewhere: their links, their commands, and a transcript that is the demo's own. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const documents = [
  "README.md",
  "CONTRIBUTING.md",
  "CHANGELOG.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];

/** As links spell the headings of a document. */
function anchorsOf(path: string): string[] {
  return [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

describe.each(documents)("%s", (path) => {
  test("links to what is there", () => {
    for (const [, link = ""] of read(path).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
      const [file = "", anchor] = link.split("#");
      const target = file === "" ? path : join(dirname(path), file);
      expect(existsSync(join(root, target)), link).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(target), link).toContain(anchor);
    }
  });

  test("names commands that package.json has", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    for (const [, name = ""] of read(path).matchAll(/\bnpm run (?:-s )?([a-z:-]+)/g))
      expect(Object.keys(scripts)).toContain(name);
  });
});

describe("README.md", () => {
  test("shows the demo as it is: the same chapters and promises, in order", () => {
    const transcript = /```text\n([\s\S]*?)\n```/.exec(read("README.md"))?.[1] ?? "";
    const shown = [...transcript.matchAll(/^ {3}✓ (.+?)(?: {2}\(.*\))?$|^\d+\. (.+)$/gm)].map(
      ([, promise, chapter]) => promise ?? chapter,
    );
    // `${name} is registered` stands once in the program and three times in the transcript.
    const told = [
      ...read("scripts/demo.ts").matchAll(/\b(?:check|chapter)\(\s*(?:"([^"]+)"|`\$\{name\}[^`]*`)/g),
    ].flatMap(([, words]) => words ?? []);
    expect(shown.filter((line) => !/^\w+ is registered$/.test(line ?? ""))).toEqual(told);
    expect(transcript).toContain(
      `demo: ok (${shown.length - told.filter((line) => transcript.includes(`. ${line}\n`)).length} checks)`,
    );
  });
});
