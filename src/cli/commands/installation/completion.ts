/** `sallyport completion`: what a shell completes by. */
import { completionScript, type Shell, SHELLS } from "../../help/completion.ts";
import type { Family } from "../../session/command.ts";
import { usage } from "../../terminal/errors.ts";

/** Adds `completion`. */
export const completionFamily: Family = (program, run) => {
  program
    .command("completion")
    .description("print what a shell completes this command by")
    .argument("<shell>", SHELLS.join(", "))
    .action((shell: string) =>
      run(async ({ output }) => {
        if (!isShell(shell)) throw usage(`there is completion for ${SHELLS.join(", ")}`);
        const script = completionScript(shell, program);
        await output.result({ shell, script }, script.trimEnd().split("\n"));
      }),
    );
};

function isShell(text: string): text is Shell {
  return SHELLS.some((shell) => shell === text);
}
