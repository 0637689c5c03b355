/**
 * Invites: an operator makes one, and whoever holds it registers an agent with a key of its own (contract §3).
 *
 * @example
 * ```ts
 * const { inviteId, invite, link } = await operator.invites.create({ note: "for Bob" });
 * const bobsKeys = await generateKeys();
 * const bob = await enrollAgent({ baseUrl, keys: bobsKeys, invite }, { name: "Bob", framework: "demo" });
 * console.log(bob.agentDid.startsWith("did:"), link.endsWith(invite)); // true true
 * await operator.invites.revoke(inviteId);
 * ```
 */
import * as z from "zod/mini";
import { type ConnectionOptions, createCaller, parseAnswer } from "../transport/http-call.ts";
import type { Keys } from "../transport/keys.ts";
import { provenBy } from "../transport/signing.ts";
import { type RegisteredAgent, registeredAgent } from "./registered-agent.ts";
import type { Send } from "./rpc.ts";

const created = z.object({
  inviteId: z.string(),
  invite: z.string(),
  ownerDid: z.string(),
  tenantId: z.string(),
  uses: z.number(),
  expiresAtMs: z.number(),
  link: z.string(),
});
const listed = z.object({
  inviteId: z.string(),
  ownerDid: z.string(),
  tenantId: z.string(),
  uses: z.number(),
  usesLeft: z.number(),
  agents: z.array(z.string()),
  note: z.optional(z.string()),
  createdBy: z.string(),
  createdAtMs: z.number(),
  expiresAtMs: z.number(),
  revokedAtMs: z.optional(z.number()),
});
const page = z.object({ invites: z.array(listed), nextCursor: z.optional(z.string()) });
const revoked = z.object({ inviteId: z.string(), revokedAtMs: z.number() });

/** A new invite: `invite` is `spi_…` and shown this once, `link` carries it to a person. */
export type CreatedInvite = z.infer<typeof created>;
/** An invite without its secret: the uses that are left, and the agents that came by it. Times in milliseconds since 1970. */
export type ListedInvite = z.infer<typeof listed>;

/** The invites of an installation. */
export type Invites = {
  /**
   * @param invite whose agents it makes (a new owner, and the owner's own tenant, otherwise), `uses` 1 to 100 (1), `ttlSeconds`
   *   60 to 7,776,000 (604,800), and a note of at most 200 characters
   */
  create(invite?: {
    readonly ownerDid?: string | undefined;
    readonly tenantId?: string | undefined;
    readonly uses?: number | undefined;
    readonly ttlSeconds?: number | undefined;
    readonly note?: string | undefined;
  }): Promise<CreatedInvite>;
  /** `nextCursor` is null on the last page. */
  list(query?: {
    readonly cursor?: string | undefined;
  }): Promise<{ readonly invites: readonly ListedInvite[]; readonly nextCursor: string | null }>;
  /** When this resolves, nobody comes by it any more; who has come stays. */
  revoke(inviteId: string): Promise<{ readonly inviteId: string; readonly revokedAtMs: number }>;
};

/** @param send how the operator sends requests */
export function createInvites(send: Send): Invites {
  const post = async (path: string, body: unknown): Promise<unknown> =>
    (await send({ method: "POST", path, body: JSON.stringify(body) })).json;
  return {
    create: async (invite = {}) => parseAnswer(created, await post("/v1/invites", invite)),
    async list({ cursor } = {}) {
      const path = cursor === undefined ? "/v1/invites" : `/v1/invites?cursor=${encodeURIComponent(cursor)}`;
      const { invites, nextCursor } = parseAnswer(page, (await send({ method: "GET", path })).json);
      return { invites, nextCursor: nextCursor ?? null };
    },
    revoke: async (inviteId) => parseAnswer(revoked, await post("/v1/invites/revoke", { inviteId })),
  };
}

/** Who comes by an invite: the agent's own keys, and the invite. */
export type EnrollOptions = ConnectionOptions & { readonly keys: Keys; readonly invite: string };

/**
 * Registers an agent by an invite; owner and tenant are the invite's.
 *
 * @param agent a name of 1 to 64 characters, what it is built with, and a description of at most 280 characters
 * @returns the agent's credential, which is shown this once
 * @throws ProblemError `PROXY_AUTH_INVALID_TOKEN` for every invite that is of no use, `PROXY_CONFLICT` for a key that is known
 */
export async function enrollAgent(
  options: EnrollOptions,
  agent: { readonly name: string; readonly framework: string; readonly description?: string | undefined },
): Promise<RegisteredAgent> {
  const { keys, invite } = options;
  const caller = createCaller(options);
  const { name, framework, description } = agent;
  const body = JSON.stringify({ name, framework, description, publicKey: keys.publicKey });
  const { json } = await caller.call({ method: "POST", path: "/v1/agents/enroll", body }, (request) =>
    provenBy(keys, { Authorization: `Invite ${invite}` }, request, caller.clock.nowMs()),
  );
  return parseAnswer(registeredAgent, json);
}
