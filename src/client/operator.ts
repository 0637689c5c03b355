/**
 * Clients of a bearer: the operator, who registers and ends agents, and a service account with its API key.
 *
 * @example
 * ```ts
 * const operator = createOperatorClient({ baseUrl: "http://127.0.0.1:8787", token });
 * const keys = await generateKeys();
 * const registered = await operator.registerAgent({ name: "Scout", framework: "demo", publicKey: keys.publicKey });
 * const agent = createAgentClient({ baseUrl: "http://127.0.0.1:8787", keys, credential: registered });
 * console.log((await agent.pairing.peers()).length); // 0
 * ```
 */
import * as z from "zod/mini";
import { type AuditPage, type AuditQuery, listAudit } from "./methods/audit.ts";
import { type Call, type ConnectionOptions, createCaller, parseAnswer } from "./transport/http-call.ts";
import { createDeadLetters, type DeadLetters } from "./methods/dead-letters.ts";
import { createDevices, type Devices } from "./methods/devices.ts";
import {
  type CallBatch,
  type CallMethod,
  type CallText,
  createCallBatch,
  createCallMethod,
  createCallText,
  type Send,
} from "./methods/rpc.ts";
import { createInvites, type Invites } from "./methods/invites.ts";
import { createOperators, type Operators } from "./methods/operators.ts";
import { createLookUpProfile, type LookUpProfile } from "./methods/profiles.ts";
import { type RegisteredAgent, registeredAgent } from "./methods/registered-agent.ts";
import { createTrust, type Trust } from "./methods/trust.ts";

const listedAgent = z.object({
  agentDid: z.string(),
  ownerDid: z.string(),
  name: z.string(),
  framework: z.string(),
  status: z.string(),
  createdAtMs: z.number(),
  aitExpiresAtMs: z.optional(z.nullable(z.number())),
});
const agentPage = z.object({ agents: z.array(listedAgent), nextCursor: z.optional(z.nullable(z.string())) });
const rotated = z.object({ kid: z.string() });

export type { RegisteredAgent };
/** An agent as the registry lists it; times in milliseconds since 1970. */
export type ListedAgent = z.infer<typeof listedAgent>;

/** A new agent. */
export type AgentRegistration = {
  readonly name: string;
  readonly framework: string;
  /** base64url of 32 bytes: the agent keeps the private half. */
  readonly publicKey: string;
  readonly ownerDid?: string | undefined;
  readonly tenantId?: string | undefined;
  readonly description?: string | undefined;
  readonly ttlSeconds?: number | undefined;
};

/** What an operator can do. */
export type OperatorClient = {
  registerAgent(registration: AgentRegistration): Promise<RegisteredAgent>;
  listAgents(query?: {
    readonly cursor?: string | undefined;
  }): Promise<{ agents: ListedAgent[]; nextCursor: string | null }>;
  /** Ends everything of the agent: when this resolves, it is over. */
  revokeAgent(agentDid: string, reason?: string): Promise<void>;
  /** A new key for the same agent: same DID, same trust; everything issued before is over. */
  rekeyAgent(agentDid: string, publicKey: string): Promise<RegisteredAgent>;
  rotateSigningKey(): Promise<{ kid: string }>;
  revokeSigningKey(kid: string): Promise<void>;
  deadLettersOf(agentDid: string): DeadLetters;
  devicesOf(agentDid: string): Devices;
  /** Who an agent is. */
  readonly profileOf: LookUpProfile;
  readonly trust: Trust;
  readonly invites: Invites;
  readonly operators: Operators;
  /** A page of the audit log, newest first. */
  audit(query?: AuditQuery): Promise<AuditPage>;
  readonly call: CallMethod;
  readonly callText: CallText;
  readonly batch: CallBatch;
};

/** @param options `token` is the `OPERATOR_TOKEN` of the installation, or an operator's key `spo_…`, which may what its role may */
export function createOperatorClient(options: ConnectionOptions & { readonly token: string }): OperatorClient {
  const send = bearerSend(options);
  const call = createCallMethod(send);
  const post = async (path: string, body: unknown): Promise<unknown> =>
    (await send({ method: "POST", path, body: JSON.stringify(body) })).json;
  return {
    registerAgent: async (registration) => parseAnswer(registeredAgent, await post("/v1/agents", registration)),
    async listAgents({ cursor } = {}) {
      const path = cursor === undefined ? "/v1/agents" : `/v1/agents?cursor=${encodeURIComponent(cursor)}`;
      const { agents, nextCursor } = parseAnswer(agentPage, (await send({ method: "GET", path })).json);
      return { agents, nextCursor: nextCursor ?? null };
    },
    async revokeAgent(agentDid, reason) {
      await post("/v1/agents/revoke", { agentDid, reason });
    },
    rekeyAgent: async (agentDid, publicKey) =>
      parseAnswer(registeredAgent, await post("/v1/agents/rekey", { agentDid, publicKey })),
    rotateSigningKey: async () => parseAnswer(rotated, await post("/v1/keys/rotate", {})),
    async revokeSigningKey(kid) {
      await post("/v1/keys/revoke", { kid });
    },
    deadLettersOf: (agentDid) => createDeadLetters(send, agentDid),
    devicesOf: (agentDid) => createDevices(call, agentDid),
    profileOf: createLookUpProfile(send),
    trust: createTrust(call),
    invites: createInvites(send),
    operators: createOperators(call),
    audit: (query = {}) => listAudit(call, query),
    call,
    callText: createCallText(send),
    batch: createCallBatch(send),
  };
}

/** What a service account can do: call methods. */
export type ApiKeyClient = {
  readonly call: CallMethod;
  readonly callText: CallText;
  readonly batch: CallBatch;
};

/**
 * The client of a service account.
 *
 * @example
 * ```ts
 * const agents = await operator.listAgents();
 * const wanted = { agentDid: agents.agents[0].agentDid, name: "nightly", scopes: ["tasks:read"] };
 * const { key } = (await operator.call("apikey/create", wanted)) as { key: string };
 * const account = createApiKeyClient({ baseUrl: "http://127.0.0.1:8787", key });
 * console.log(Object.keys((await account.call("task/list")) as object).join()); // tasks
 * ```
 *
 * @param options `key` is `spk_…`
 * @returns the client of a service account
 * @throws TypeError when the base URL is none
 */
export function createApiKeyClient(options: ConnectionOptions & { readonly key: string }): ApiKeyClient {
  const send = bearerSend({ ...options, token: options.key });
  return { call: createCallMethod(send), callText: createCallText(send), batch: createCallBatch(send) };
}

function bearerSend(options: ConnectionOptions & { readonly token: string }): Send {
  const caller = createCaller(options);
  const authorize = () => Promise.resolve({ Authorization: `Bearer ${options.token}` });
  return (call: Call) => caller.call(call, authorize);
}
