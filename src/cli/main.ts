/** Entry of the command `sallyport`; see program.ts. */
import { buffer } from "node:stream/consumers";
import { runProgram } from "./program.ts";
import { networkTo } from "./session/network.ts";
import { CliError, EXIT } from "./terminal/errors.ts";

// What Node calls an experiment (SQLite in 22, Ed25519 in 20) is none of the user's business.
process.removeAllListeners("warning");
process.on("warning", ({ name, message }) => {
  if (name !== "ExperimentalWarning") process.stderr.write(`${name}: ${message}\n`);
});

// Whatever is written is for this user alone, also where a file is made on the way.
process.umask(0o077);

// A reader that has seen enough, such as `head`, is no failure; a message that could not be written is not acknowledged.
// Whatever else keeps from writing is the failure of the write itself.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
});

process.exitCode = await runProgram(process.argv.slice(2), {
  streams: {
    out: (text) =>
      new Promise((resolve, reject) => {
        process.stdout.write(text, (error) => (error ? reject(unwritten(error)) : resolve()));
      }),
    err: (text) => void process.stderr.write(text),
  },
  environment: process.env,
  standardInput: () => buffer(process.stdin),
  workingFolder: process.cwd(),
  interactive: process.stdin.isTTY && process.stderr.isTTY,
  useNetwork: (address) => networkTo(process.env, address),
});

function unwritten(cause: Error): CliError {
  return new CliError("OUTPUT", `standard output cannot be written: ${cause.message}`, { exitCode: EXIT.setup, cause });
}
