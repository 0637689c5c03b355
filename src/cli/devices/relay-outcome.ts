/** What the end of a relay connection means to a command. */
import type { RelayEnd } from "../../client/index.ts";
import { adviceForEndedDevice } from "./token.ts";
import { CliError, EXIT, type ExitCode } from "../terminal/errors.ts";

/**
 * @param device name of the device that was connected; null for the agent itself
 * @returns the exit code where the connection was closed by this side
 * @throws the failure that it ended with
 */
export function outcomeOf(end: RelayEnd, device: string | null): ExitCode {
  switch (end.why) {
    case "closed":
      return EXIT.ok;
    case "superseded":
      throw new CliError("SUPERSEDED", "another connection of this agent has taken over", {
        exitCode: EXIT.refused,
        advice: "An agent listens in one place at a time; its devices may each listen beside it.",
      });
    case "credential-ended":
      if (end.error !== null) throw end.error;
      throw new CliError("CREDENTIAL_ENDED", `the server has ended the connection: ${end.detail}`, {
        exitCode: EXIT.credential,
        advice:
          device === null
            ? "Ask the operator; `sallyport agent rekey` gives the agent a new key."
            : adviceForEndedDevice(device, end.detail),
      });
    case "policy":
    case "refused":
      if (end.error !== null) throw end.error;
      throw new CliError("RELAY_STOPPED", `the server has ended the connection: ${end.detail}`, {
        exitCode: EXIT.refused,
        advice: "Run `sallyport doctor`.",
      });
  }
}
