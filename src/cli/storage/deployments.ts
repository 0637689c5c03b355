/** The secrets of deployments made from this machine: the only other copy is at Cloudflare, which gives none back. */
import * as z from "zod/mini";
import { openValueFile, type ValueFile } from "./record-files.ts";

const secret = z.string().check(z.minLength(32));
const schema = z.record(
  z.string(),
  z.object({ OPERATOR_TOKEN: z.optional(secret), REGISTRY_SIGNING_SECRET: z.optional(secret) }),
);

/** By `<account id>/<name of the Worker>`. */
export type Deployments = z.infer<typeof schema>;

/** The name of the file in the home folder. */
export const DEPLOYMENTS_FILE = "deployments.json";

/** @param home the command's folder */
export function openDeployments(home: string): ValueFile<Deployments> {
  return openValueFile(
    home,
    DEPLOYMENTS_FILE,
    schema,
    "Restore it from a copy: it has the signing secret, which nothing else has in readable form.",
  );
}
