/**
 * Every table of the D1 database, once. The migrations stay SQL by hand and make the tables; this says the same to the code, and
 * `test/database/schema.test.ts` compares the two column by column. What drizzle cannot say (WITHOUT ROWID, STRICT, triggers)
 * stands in a table's comment.
 */
export { audit, auditRetention, auditUsage } from "./schema/audit.ts";
export { authorityEpochs, fence } from "./schema/authority.ts";
export {
  authzOutbox,
  authzOutboxState,
  grantsTaken,
  relationshipExpiries,
  relationships,
  shareGuard,
  tenantEnforcement,
  withdrawnGrants,
} from "./schema/graph.ts";
export { agentGroups, groupFences, groupMembers, groupTokens } from "./schema/groups.ts";
export { inviteGuard, invites, inviteUses } from "./schema/invites.ts";
export { operators } from "./schema/operators.ts";
export { quotaGuard, quotaUsage } from "./schema/quotas.ts";
export {
  agentKeys,
  agents,
  aits,
  crlState,
  registryGuard,
  registryKeys,
  tokenFamilies,
  tokenPairs,
} from "./schema/registry.ts";
export { apiKeyCleanup, apiKeys, tasks } from "./schema/tasks.ts";
export { pairTickets, trustPairs } from "./schema/trust.ts";
