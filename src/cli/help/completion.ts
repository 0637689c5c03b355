/** Completion for shells: scripts made of the commands and options as they are, so that a shell need not ask the program. */
import type { Command } from "commander";

/** What may follow some words: each with what it says of itself. */
type Place = {
  /** Without the program's name, e.g. `agent register`. */
  readonly words: string;
  readonly commands: readonly { readonly name: string; readonly says: string }[];
  readonly options: readonly { readonly name: string; readonly says: string }[];
};

/** The shells that there is a script for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;
/** One of {@link SHELLS}. */
export type Shell = (typeof SHELLS)[number];

/**
 * @param program the whole command
 * @returns the shell's script
 */
export function completionScript(shell: Shell, program: Command): string {
  const places = placesOf(program, "");
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](places);
}

function placesOf(command: Command, words: string): Place[] {
  const commands = command.commands.filter((each) => each.name() !== "help");
  const place: Place = {
    words,
    commands: commands.map((each) => ({ name: each.name(), says: firstWords(each.description()) })),
    options: [
      ...command.options.map(({ long, description }) => ({ name: long ?? "", says: firstWords(description) })),
      { name: "--help", says: "what it does, with examples" },
    ].filter(({ name }) => name !== ""),
  };
  return [place, ...commands.flatMap((each) => placesOf(each, `${words} ${each.name()}`.trim()))];
}

/** Of a description, as much as fits beside a word in a terminal. */
function firstWords(text: string): string {
  const first = text.split(/[;:,(\n]/)[0] ?? "";
  return first.trim().slice(0, 60);
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const namesAt = ({ commands, options }: Place): string[] => [...commands, ...options].map(({ name }) => name);

/** Lines of a `case` that follow the words of the line to the place they lead to. */
function steps(places: readonly Place[], variable: string): string {
  const known = places.filter(({ words }) => words !== "").map(({ words }) => `" ${words}"`);
  return `    case " $${variable}\${${variable}:+ }$word" in\n      ${known.join("|")}) ${variable}="$${variable}\${${variable}:+ }$word" ;;\n    esac`;
}

function bashScript(places: readonly Place[]): string {
  return `# bash completion for sallyport
_sallyport() {
  local current="\${COMP_WORDS[COMP_CWORD]}" at="" word words=""
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
${steps(places, "at")}
  done
  case "$at" in
${places.map((place) => `    ${quoted(place.words)}) words=${quoted(namesAt(place).join(" "))} ;;`).join("\n")}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _sallyport sallyport
`;
}

function zshScript(places: readonly Place[]): string {
  const described = ({ commands, options }: Place): string =>
    [...commands, ...options].map(({ name, says }) => quoted(`${name}:${says}`)).join(" ");
  return `#compdef sallyport
# zsh completion for sallyport
_sallyport() {
  local at="" word
  local -a candidates
  for word in "\${(@)words[2,CURRENT-1]}"; do
${steps(places, "at")}
  done
  case "$at" in
${places.map((place) => `    ${quoted(place.words)}) candidates=(${described(place)}) ;;`).join("\n")}
  esac
  _describe sallyport candidates || _files
}
if [ "$funcstack[1]" = _sallyport ]; then _sallyport "$@"; else compdef _sallyport sallyport; fi
`;
}

/** Of fish: whether the line has come to a place. */
const fishCondition = (words: string): string => quoted(`test (__sallyport_at) = "${words}"`);

function fishScript(places: readonly Place[]): string {
  const lines = places.flatMap(({ words, commands, options }) => [
    ...commands.map(
      ({ name, says }) => `complete -c sallyport -n ${fishCondition(words)} -f -a ${name} -d ${quoted(says)}`,
    ),
    ...options.map(
      ({ name, says }) => `complete -c sallyport -n ${fishCondition(words)} -l ${name.slice(2)} -d ${quoted(says)}`,
    ),
  ]);
  const known = places.filter(({ words }) => words !== "").map(({ words }) => quoted(words));
  return `# fish completion for sallyport
function __sallyport_at
  set -l at ""
  for word in (commandline -opc)[2..]
    set -l next (string trim -- "$at $word")
    contains -- "$next" ${known.join(" ")}; and set at "$next"
  end
  echo "$at"
end
${lines.join("\n")}
`;
}
