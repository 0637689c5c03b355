import type { Target } from "./target.ts";
import { frameTargets } from "./targets/frames.ts";
import { identifiers } from "./targets/identifiers.ts";
import { proofs } from "./targets/proofs.ts";
import { registryDocuments } from "./targets/registry-documents.ts";
import { relationships } from "./targets/relationships.ts";
import { requests } from "./targets/requests.ts";
import { signatures } from "./targets/signatures.ts";
import { texts } from "./targets/text.ts";
import { tokens } from "./targets/tokens.ts";

/** Everything that is fuzzed without the program around it. */
export const TARGETS: readonly Target[] = [
  ...identifiers,
  ...tokens,
  ...proofs,
  ...frameTargets,
  ...registryDocuments,
  ...relationships,
  ...requests,
  ...signatures,
  ...texts,
];
