/** Where other folders add their statements to the registry's commits, so that neither is there without the other. */
import type { CallContext } from "../call/context.ts";
import type { BatchItem } from "../database/batch.ts";
import type { AgentDid } from "../wire/did.ts";
import type { Agent } from "./agents.ts";

/** Why everything of an agent ends: permanently, or because it gets another key. */
export type EndCause = "revoked" | "rekeyed";

/** Statements of one folder for an agent that is being registered. They stand behind the agent's own row. */
export type RegistrationStatements = (ctx: CallContext, agent: Agent) => readonly BatchItem[];

/** Statements of one folder that end what it issued to an agent. They may run more than once. */
export type EndStatements = (ctx: CallContext, agentDid: AgentDid, cause: EndCause) => readonly BatchItem[];

/** What other folders commit with the registry, or are notified of. */
export type IdentityHooks = {
  readonly atRegistration: readonly RegistrationStatements[];
  readonly atEnd: readonly EndStatements[];
  /** Run after an end that holds, before its answer; what they do not finish they leave to housekeeping. */
  readonly afterEnd?: readonly ((ctx: CallContext, agentDid: AgentDid) => Promise<void>)[];
  /** Called once other signing keys hold than before. */
  readonly keysChanged?: () => void;
};
