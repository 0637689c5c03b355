/** What a new agent, or an agent with a new key, is given. */
import * as z from "zod/mini";

/** The answer of a registration, an enrolment and a re-keying. */
export const registeredAgent = z.object({
  agentDid: z.string(),
  ownerDid: z.string(),
  tenantId: z.optional(z.string()),
  ait: z.string(),
  access: z.object({ token: z.string(), expiresAtMs: z.number() }),
  refreshToken: z.string(),
});

/** What registration, enrolment and re-keying give: the agent's credential, and whose it is. Shown once. */
export type RegisteredAgent = z.infer<typeof registeredAgent>;
