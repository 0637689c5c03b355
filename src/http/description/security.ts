/** Who may come, as OpenAPI says it. An agent shows three things at once: its identity, its session, and a proof of its key. */
import type { CredentialKind } from "../../auth/credential.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import type { JsonObject } from "./schemas.ts";

type Caller = CredentialKind | "invite";

export const SECURITY_SCHEMES: JsonObject = {
  agent: { type: "http", scheme: "Claw", description: "`Authorization: Claw <AIT>`, the agent's identity token." },
  agentAccess: { type: "apiKey", in: "header", name: "X-Claw-Agent-Access", description: "The agent's access token." },
  proof: {
    type: "apiKey",
    in: "header",
    name: "Signature",
    description:
      "Proof of possession: RFC 9421 with `Signature-Input` and `Content-Digest`, in the profile that `Accept-Signature` names, or the older `X-Claw-Proof` with its headers. See docs/proof.md.",
  },
  device: { type: "http", scheme: "Device", description: "`Authorization: Device spd_…` and `X-Claw-Agent-Did`." },
  shared: { type: "http", scheme: "Shared", description: "`Authorization: Shared <secret>` and `X-Claw-Agent-Did`." },
  apiKey: { type: "http", scheme: "bearer", bearerFormat: "spk_…", description: "A service account's key." },
  operator: {
    type: "http",
    scheme: "bearer",
    bearerFormat: "spo_…",
    description: "An operator's key, or the operator token.",
  },
  accessAssertion: {
    type: "apiKey",
    in: "header",
    name: "Cf-Access-Jwt-Assertion",
    description: "What Cloudflare Access says of a person, where the installation takes it.",
  },
  invite: { type: "http", scheme: "Invite", description: "`Authorization: Invite spi_…`." },
};

/**
 * @param access whether an agent shows its access token too
 * @returns the alternatives; an empty list where nobody is asked
 */
export function requirementsOf(callers: readonly Caller[], access: RouteNeeds["access"]): JsonObject[] {
  return callers.flatMap((caller): JsonObject[] => {
    switch (caller) {
      case "agent": {
        const bare = { agent: [], proof: [] };
        const full = { ...bare, agentAccess: [] };
        if (access === "if-sent") return [bare, full];
        return access ? [full] : [bare];
      }
      case "device":
      case "invite":
        return [{ [caller]: [], proof: [] }];
      case "shared":
      case "apiKey":
        return [{ [caller]: [] }];
      case "operator":
        return [{ operator: [] }, { accessAssertion: [] }];
    }
  });
}
