/** Programs without a socket: they fetch what waits, say what they made of it, and newcomers use up invites. */
import type { Agent } from "../support/program/agents.ts";
import { newKey, operator, request, send, type Signed } from "../support/program/agents.ts";
import { connectRelay } from "../support/program/relay-client.ts";
import { proofHeaders } from "../support/signing.ts";
import { hasWorked, type Run, sleep } from "./participants.ts";

const RETRY_AFTER_MS = 60;
const INVITE_USES = 3;
/** More than an invite has uses, at once. */
const NEWCOMERS = 5;
/** How long the senders wait for the receipts of what was reported. */
const RECEIPTS_WITHIN_MS = 60_000;

export type Fetching = {
  /** Deliveries so far, repeats included, and verdicts that were answered. */
  count(): { fetched: number; verdicts: number };
  stop(): Promise<void>;
};

type Verdict = { deliveryId: string; sender: string; status: "handled" | "failed" };
type Fetched = { deliveryId: string; fromAgentDid: string; toAgentDid: string; payload: { key?: string } };

const signed = (method: string, path: string, body?: unknown): Signed => ({
  method,
  path,
  ...(body === undefined ? {} : { body: JSON.stringify(body) }),
});

/** Every recipient fetches, acknowledges most of it, and reports on some of what it is sure to have acknowledged. */
export function startFetching(run: Run): Fetching {
  const { history, random, program } = run;
  const counts = { fetched: 0, verdicts: 0 };
  let running = true;

  /** Until it is answered; and now and then the opposite afterwards, which may not change anything. */
  const report = async (agent: Agent, { deliveryId, sender, status }: Verdict): Promise<void> => {
    const said = (word: Verdict["status"]) =>
      run.ask("delivery receipt", () =>
        request(
          program.url,
          agent,
          signed("POST", "/v1/relay/delivery-receipts", {
            requestId: deliveryId,
            senderAgentDid: sender,
            recipientAgentDid: agent.did,
            status: word === "handled" ? "delivered_to_webhook" : "dead_lettered",
          }),
        ),
      );
    for (;;) {
      // oxlint-disable no-await-in-loop -- until there is an answer
      const { outcome, atMs } = await said(status);
      if (outcome === "unknown" || outcome === 503 || outcome === 429) {
        await sleep(RETRY_AFTER_MS);
        continue;
      }
      history.record({ kind: "verdict", atMs, deliveryId, sender, status, outcome });
      counts.verdicts += 1;
      if (random.chance(0.1)) await said(status === "handled" ? "failed" : "handled");
      return;
      // oxlint-enable no-await-in-loop
    }
  };

  const fetchOnce = async (agent: Agent): Promise<Verdict[]> => {
    const path = `/v1/inbox?limit=${random.between(1, 40)}&waitSeconds=${random.between(0, 2)}`;
    const { outcome, atMs, body } = await run.ask("inbox", () => request(program.url, agent, signed("GET", path)));
    const messages = outcome === 200 ? (body["messages"] as Fetched[]) : [];
    const acks = messages.flatMap(({ deliveryId, fromAgentDid, toAgentDid, payload: { key } }) => {
      const isRefused = random.chance(0.005);
      if (key === undefined) return [{ deliveryId, accepted: true }];
      counts.fetched += 1;
      history.record({
        kind: "deliver",
        atMs,
        key,
        sender: fromAgentDid,
        recipient: toAgentDid,
        deliveryId,
        isRefused,
      });
      // Held for a minute by somebody who says nothing, now and then.
      if (random.chance(0.0005)) return [];
      const isLater = !isRefused && random.chance(0.02);
      return [{ deliveryId, accepted: !isRefused && !isLater, ...(isLater ? { retryAfterMs: 200 } : {}) }];
    });
    if (acks.length === 0) {
      if (outcome !== 200) await sleep(RETRY_AFTER_MS);
      return [];
    }
    const answered = await run.ask("inbox ack", () =>
      request(program.url, agent, signed("POST", "/v1/inbox/ack", { acks })),
    );
    // Only what was certainly acknowledged may be reported on.
    if (answered.outcome !== 200 || answered.body["acknowledged"] !== acks.length) return [];
    const taken = new Set(acks.filter(({ accepted }) => accepted).map(({ deliveryId }) => deliveryId));
    return messages
      .filter(({ deliveryId, payload }) => payload.key !== undefined && taken.has(deliveryId) && random.chance(0.3))
      .map(({ deliveryId, fromAgentDid }) => ({
        deliveryId,
        sender: fromAgentDid,
        status: random.chance(0.8) ? "handled" : "failed",
      }));
  };

  const loops = run.recipients.map(async (agent) => {
    while (running) {
      // oxlint-disable-next-line no-await-in-loop -- one fetch after the other
      const verdicts = await fetchOnce(agent);
      // oxlint-disable-next-line no-await-in-loop
      await Promise.all(verdicts.slice(0, 8).map((verdict) => report(agent, verdict)));
    }
  });
  return {
    count: () => counts,
    async stop() {
      running = false;
      await Promise.all(loops);
    },
  };
}

/** What the senders are told in the end of what was reported: by receipts over a socket first, then asked. */
export async function lookAtVerdicts(run: Run): Promise<void> {
  const { history, program, senders } = run;
  const verdicts = history.events.filter((event) => event.kind === "verdict" && event.outcome === 202);
  for (const agent of senders) {
    const wanted = new Set(
      verdicts.flatMap((event) => (event.kind === "verdict" && event.sender === agent.did ? [event.deliveryId] : [])),
    );
    if (wanted.size === 0) continue;
    // oxlint-disable no-await-in-loop -- one sender after the other
    const client = await connectRelay(program.url, agent);
    const seen = (): Map<string, string> =>
      new Map(
        client.frames
          .filter(({ type, status }) => type === "receipt" && (status === "handled" || status === "failed"))
          .map(({ deliveryId, status }) => [String(deliveryId), String(status)]),
      );
    const deadlineMs = performance.now() + RECEIPTS_WITHIN_MS;
    while (performance.now() < deadlineMs && [...wanted].some((id) => !seen().has(id))) await sleep(200);
    const atMs = performance.now();
    for (const [deliveryId, state] of seen())
      history.record({ kind: "judged", atMs, deliveryId, state, by: "receipt" });
    client.close();
    for (const deliveryId of wanted) {
      const asked = await run.ask("delivery", () =>
        request(program.url, agent, signed("GET", `/v1/deliveries/${deliveryId}`)),
      );
      const state = String(asked.body["state"]);
      history.record({ kind: "judged", atMs: asked.atMs, deliveryId, state, by: "asked" });
    }
    // oxlint-enable no-await-in-loop
  }
}

export type Newcomers = { enrolled(): number; invites(): number; stop(): Promise<void> };

/** Invites for three, each used by five at once. */
export function startNewcomers(run: Run): Newcomers {
  const { history, program } = run;
  const invites: string[] = [];
  let enrolled = 0;
  let running = true;

  const enroll = async (inviteId: string, invite: string): Promise<void> => {
    const { privateKey, x } = newKey();
    const body = JSON.stringify({ name: "newcomer", framework: "test", publicKey: x });
    const asking: Signed = { method: "POST", path: "/v1/agents/enroll", body };
    const { outcome, atMs, ...answer } = await run.ask("enroll", () =>
      send(program.url, asking, {
        Authorization: `Invite ${invite}`,
        "Content-Type": "application/json",
        ...proofHeaders(privateKey, { method: "POST", path: "/v1/agents/enroll", body }),
      }),
    );
    const agentDid = outcome === 201 ? String(answer.body["agentDid"]) : null;
    if (agentDid !== null) enrolled += 1;
    history.record({ kind: "enrolled", atMs, inviteId, agentDid, outcome });
  };

  const loop = (async () => {
    while (running) {
      // oxlint-disable no-await-in-loop -- one invite after the other
      const made = await run.ask("invite", () => operator(program.url, "POST", "/v1/invites", { uses: INVITE_USES }));
      if (hasWorked(made)) {
        const [inviteId, invite] = [String(made.body["inviteId"]), String(made.body["invite"])];
        invites.push(inviteId);
        await Promise.all(Array.from({ length: NEWCOMERS }, () => enroll(inviteId, invite)));
      }
      await sleep(RETRY_AFTER_MS);
      // oxlint-enable no-await-in-loop
    }
  })();
  return {
    enrolled: () => enrolled,
    invites: () => invites.length,
    async stop() {
      running = false;
      await loop;
    },
  };
}

/** What the store has in the end of each invite: uses, and the agents that came by it. */
export async function lookAtInvites(run: Run): Promise<void> {
  let cursor: string | undefined;
  const agents = new Set(
    (await run.program.query("SELECT agent_did FROM agents")).map((row) => String(row["agent_did"])),
  );
  do {
    const path = `/v1/invites?limit=100${cursor === undefined ? "" : `&cursor=${cursor}`}`;
    // oxlint-disable-next-line no-await-in-loop -- page by page
    const { atMs, body } = await run.ask("invites", () => operator(run.program.url, "GET", path));
    const { invites, nextCursor } = body as {
      invites: { inviteId: string; uses: number; usesLeft: number; agents: string[] }[];
      nextCursor?: string;
    };
    for (const { inviteId, uses, usesLeft, agents: came } of invites) {
      const registered = came.filter((did) => agents.has(did));
      run.history.record({ kind: "invite", atMs, inviteId, uses, usesLeft, came, registered });
    }
    cursor = nextCursor;
  } while (cursor !== undefined);
}
