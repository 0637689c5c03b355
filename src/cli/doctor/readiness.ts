/** What `doctor` makes of an installation's `/ready`: whether it can serve, and what keeps it from that. */
import * as z from "zod/mini";
import type { InstallationClient } from "../../client/index.ts";
import { failed, type Finding, finding, ok } from "./finding.ts";

/** Of each dependency what can be said of any; newer servers may say more. */
const dependency = z.looseObject({
  usable: z.optional(z.boolean()),
  reach: z.optional(z.string()),
  database: z.optional(z.string()),
});
const document = z.looseObject({ dependencies: z.record(z.string(), dependency) });

const SIGNING = "signing";
const SIGNING_ADVICE =
  "REGISTRY_SIGNING_SECRET is not the one that the registry's keys were made with: set that one again, or rotate the keys.";

/** @param installation the server @returns a finding about it, and one where it can issue nothing */
export async function* readiness(installation: InstallationClient): AsyncGenerator<Finding> {
  try {
    const { ready, document: said } = await installation.readiness();
    const unusable = unusableIn(said);
    const others = unusable.filter((name) => name !== SIGNING);
    if (ready || (others.length === 0 && unusable.length > 0)) yield ok("ready", "it can serve");
    else yield finding("ready", "warn", notReady(others), "Look at its /ready and its log, and try again.");
    if (unusable.includes(SIGNING)) {
      const detail = "cannot sign: nothing can be issued, renewed or listed as revoked";
      yield finding(SIGNING, "fail", detail, SIGNING_ADVICE);
    }
  } catch (error) {
    yield failed("ready", error);
  }
}

/** The names of what cannot be used, none where the document does not say. */
function unusableIn(said: unknown): string[] {
  const parsed = document.safeParse(said);
  if (!parsed.success) return [];
  return Object.entries(parsed.data.dependencies)
    .filter(([, { usable, reach, database }]) => usable === false || reach === "failing" || database === "failing")
    .map(([name]) => name);
}

function notReady(names: readonly string[]): string {
  return names.length === 0
    ? "it cannot serve at the moment"
    : `it cannot serve at the moment, for want of: ${names.join(", ")}`;
}
