/** What each command says of itself, and what a shell completes by. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { newInnerRunner, temporaryFolder } from "../program.ts";

const run = promisify(execFile);

/** The names under `Commands:` of a help. */
function commandsIn(help: string): string[] {
  const listed = /\nCommands:\n((?: {2}.*\n)+)/.exec(help)?.[1] ?? "";
  return [...listed.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name = ""]) => name).filter((name) => name !== "help");
}

/** The help of every command, by its words. */
async function everyHelp(): Promise<Map<string, string>> {
  const runner = await newInnerRunner();
  const helps = new Map<string, string>();
  const read = async (words: readonly string[]): Promise<void> => {
    const { code, out } = await runner.run([...words, "--help"]);
    expect(code).toBe(0);
    helps.set(words.join(" "), out);
    for (const name of commandsIn(out)) await read([...words, name]);
  };
  await read([]);
  return helps;
}

/** The words of a line, as a shell takes them apart. */
const wordsIn = (line: string): string[] =>
  [...line.replace(/\s+#.*$|\s>\s.*$/, "").matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, one, two, bare]) => one ?? two ?? bare ?? "",
  );

test("every help ends with examples, whose commands and options there are", async () => {
  const helps = await everyHelp();
  expect(helps.size).toBeGreaterThan(60);
  const known = helps.get("") ?? "";
  for (const [words, help] of helps) {
    if (words === "") continue;
    const examples = [...(help.split("\nExamples:\n")[1] ?? "").matchAll(/^ {2}sallyport (.+)$/gm)];
    expect(examples.length, `sallyport ${words} --help`).toBeGreaterThan(0);
    for (const [, line = ""] of examples) {
      const given = wordsIn(line);
      const names = given.filter((word, at) => !word.startsWith("-") && given[at - 1] !== "--agent");
      const path = names.slice(0, 2).join(" ");
      const own = helps.get(path) ?? helps.get(names[0] ?? "") ?? "";
      expect(helps.has(names[0] ?? ""), line).toBe(true);
      for (const option of given.filter((word) => word.startsWith("--")))
        expect(`${own}${known}`, line).toContain(option);
    }
  }
});

describe("completion", () => {
  const script = async (shell: string): Promise<string> =>
    (await (await newInnerRunner()).run(["completion", shell])).out;

  test.each([
    [["ag"], ["agent"]],
    [
      ["agent", "re"],
      ["register", "reissue", "rekey", "revoke"],
    ],
    [
      ["--agent", "alice", "pair", "st"],
      ["start", "status"],
    ],
    [["pair", "start", "--w"], ["--wait"]],
    [["nothing-like-it"], []],
  ])("bash: %j completes to %j", async (words, expected) => {
    const file = join(await temporaryFolder(), "completion.bash");
    await writeFile(file, await script("bash"));
    const { stdout } = await run("bash", [
      "-c",
      'source "$1"; shift; COMP_WORDS=(sallyport "$@"); COMP_CWORD=$#; _sallyport; printf "%s\\n" "${COMPREPLY[@]}"',
      "bash",
      file,
      ...words,
    ]);
    expect(stdout.split("\n").filter((line) => line !== "")).toEqual(expected);
  });

  test.each([
    ["zsh", ["-n"]],
    ["fish", ["--no-execute"]],
  ])("%s takes its script", async (shell, args) => {
    const text = await script(shell);
    expect(text).toContain("agent register");
    const file = join(await temporaryFolder(), `completion.${shell}`);
    await writeFile(file, text);
    // Where that shell is not on the machine, its words are all that can be looked at.
    const found = await run("sh", ["-c", `command -v ${shell}`]).then(
      () => true,
      () => false,
    );
    if (found) await run(shell, [...args, file]);
  });

  test("of another shell there is none", async () => {
    expect(await (await newInnerRunner()).run(["completion", "tcsh"])).toMatchObject({ code: 2 });
  });
});
