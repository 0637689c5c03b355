/**
 * Two groups: one whose members stay, in which everybody sends to all, and one in which a guest comes and goes while it sends, to
 * somebody who listens and to somebody who seldom does.
 */
import { randomUUID } from "node:crypto";
import { type Agent, register, request, send, type Signed, signedHeaders } from "../support/program/agents.ts";
import { ulid } from "../support/program/relay-client.ts";
import { agentRpc, type Asked, hasWorked, newName, type Run, sleep } from "./participants.ts";
import { recordedKey } from "./traffic.ts";

const RETRY_AFTER_MS = 60;
const ABSENT_LISTENS_MS = 300;

export type GroupTraffic = {
  /** Sends to all that were answered 202, and those that nobody answered and nobody repeated. */
  fanned(): { accepted: number; cut: number };
  /** Stays that have ended, what was tried under them afterwards, and messages that the absent one got. */
  stays(): { ended: number; tried: number; cameToAbsent: number };
  /** The one who seldom listens: what waits for it is looked at in the end. */
  readonly absent: Agent;
  stop(): Promise<void>;
};

/** Repeats a call until it was answered with success, or with one of these codes. */
async function untilDone(
  run: Run,
  agent: Agent,
  method: string,
  params: Record<string, unknown>,
  isFine: readonly string[] = [],
): Promise<Asked & { result: Record<string, unknown> }> {
  for (;;) {
    // oxlint-disable no-await-in-loop -- until it is so
    const asked = await agentRpc(run, agent, method, params);
    const code = (asked.body["error"] as { data?: { code?: string } } | undefined)?.data?.code ?? "";
    if (hasWorked(asked) || isFine.includes(code)) return asked;
    await sleep(RETRY_AFTER_MS);
    // oxlint-enable no-await-in-loop
  }
}

/** Makes a group of these agents, the first of them its admin. */
async function groupOf(run: Run, [admin, ...others]: readonly Agent[]): Promise<string> {
  if (admin === undefined) throw new Error("a group needs an admin");
  const groupId = String((await untilDone(run, admin, "group/create", { name: "team" })).result["groupId"]);
  for (const member of others) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const { result } = await untilDone(run, admin, "group/invite", { groupId });
    // oxlint-disable-next-line no-await-in-loop
    await untilDone(run, member, "group/join", { token: result["token"] });
  }
  return groupId;
}

type GroupMessage = {
  key: string;
  from: Agent;
  to: readonly Agent[];
  isToAll: boolean;
  signed: Signed;
  authority?: string;
};

function groupMessage(
  groupId: string,
  from: Agent,
  to: readonly Agent[],
  isToAll: boolean,
  authority?: string,
): GroupMessage {
  const key = newName(from);
  const [first] = to;
  const signed = {
    method: "POST",
    path: "/hooks/agent",
    body: JSON.stringify(isToAll ? { key, isToAll } : { key }),
    headers: {
      "X-Claw-Group-Id": groupId,
      "Idempotency-Key": key,
      ...(isToAll ? {} : { "X-Claw-Recipient-Agent-Did": first?.did ?? "" }),
    },
  };
  return { key, from, to, isToAll, signed, ...(authority === undefined ? {} : { authority }) };
}

/** Sends once, signed anew, and writes down what came of it for each recipient. */
async function postInGroup(run: Run, { key, from, to, isToAll, signed, authority }: GroupMessage): Promise<Asked> {
  const asked = await run.ask("hook", () => send(run.program.url, signed, signedHeaders(from, signed)));
  const { outcome, begunAtMs, atMs, body } = asked;
  const deliveries = (body["deliveries"] ?? []) as { agentDid: string; deliveryId: string }[];
  for (const { did: recipient } of to) {
    const own = isToAll ? deliveries.find(({ agentDid }) => agentDid === recipient)?.deliveryId : body["deliveryId"];
    run.history.record({
      kind: "send",
      begunAtMs,
      atMs,
      key: recordedKey({ key, isToAll }, recipient),
      sender: from.did,
      recipient,
      outcome,
      deliveryId: outcome === 202 ? String(own) : null,
      wasKnown: false,
      ...(authority === undefined ? {} : { authority }),
    });
  }
  return asked;
}

async function untilAnswered(run: Run, message: GroupMessage): Promise<Asked> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- until there is an answer
    const asked = await postInGroup(run, message);
    if (asked.outcome !== "unknown" && asked.outcome < 500) return asked;
    // oxlint-disable-next-line no-await-in-loop
    await sleep(RETRY_AFTER_MS);
  }
}

export async function startGroups(run: Run): Promise<GroupTraffic> {
  const { history, random, program } = run;
  const [host] = run.recipients as [Agent];
  const [guest, absent] = [await register(run.registryUrl, "guest"), await register(run.registryUrl, "absent")];
  for (const agent of [guest, absent]) run.known.set(agent.did, agent);
  const stable = [...run.recipients];
  const stableId = await groupOf(run, stable);
  const openId = await groupOf(run, [host, absent]);
  let running = true;
  const fanned = { accepted: 0, cut: 0 };
  const stays = { ended: 0, tried: 0, cameToAbsent: 0 };

  /** Everybody sends to all: now and then until it is answered, else once, so that a death in the middle shows. */
  const sendToAll = async (from: Agent): Promise<void> => {
    while (running) {
      const to = stable.filter((agent) => agent !== from);
      const message = groupMessage(stableId, from, to, true);
      // oxlint-disable no-await-in-loop -- one after the other
      const asked = random.chance(0.3) ? await untilAnswered(run, message) : await postInGroup(run, message);
      history.record({ kind: "fanned", atMs: asked.atMs, keys: to.map(({ did }) => recordedKey(message, did)) });
      if (asked.outcome === 202) fanned.accepted += 1;
      if (asked.outcome === "unknown") fanned.cut += 1;
      await sleep(random.between(10, 80));
      // oxlint-enable no-await-in-loop
    }
  };

  /** The absent one listens for a moment, and acknowledges what comes. */
  const listenShortly = async (): Promise<void> => {
    const issued = await run.ask("relay ticket", () =>
      request(program.url, absent, { method: "POST", path: "/v1/relay/tickets", body: "{}" }),
    );
    if (!hasWorked(issued)) return;
    const socket = new WebSocket(`${program.url.replace("http", "ws")}/relay/connect`, [
      `sallyport.ticket.${String(issued.body["ticket"])}`,
    ]);
    const openedAtMs = performance.now();
    socket.addEventListener("error", () => undefined);
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(String(data)) as {
        type: string;
        id: string;
        deliveryId: string;
        fromAgentDid: string;
        payload: { key: string; isToAll?: boolean };
      };
      if (frame.type !== "deliver") return;
      stays.cameToAbsent += 1;
      history.record({
        kind: "deliver",
        atMs: performance.now(),
        key: recordedKey(frame.payload, absent.did),
        sender: frame.fromAgentDid,
        recipient: absent.did,
        deliveryId: frame.deliveryId,
        isRefused: false,
        openedAtMs,
      });
      const ack = { type: "deliver_ack", ackId: frame.id, accepted: true };
      if (socket.readyState === WebSocket.OPEN)
        socket.send(JSON.stringify({ v: 1, id: ulid(), ts: new Date().toISOString(), ...ack }));
    });
    await sleep(ABSENT_LISTENS_MS);
    socket.close();
  };

  const invite = async (): Promise<void> => {
    for (;;) {
      // oxlint-disable no-await-in-loop -- until the guest is in
      const { result } = await untilDone(run, host, "group/invite", { groupId: openId });
      const joined = await agentRpc(run, guest, "group/join", { token: result["token"] });
      if (hasWorked(joined) || hasWorked(await agentRpc(run, guest, "group/get", { groupId: openId }))) return;
      await sleep(RETRY_AFTER_MS);
      // oxlint-enable no-await-in-loop
    }
  };
  const sayAs = (authority: string): GroupMessage => {
    const isToAll = random.chance(0.4);
    const to = isToAll ? [host, absent] : [random.pick([host, absent])];
    return groupMessage(openId, guest, to, isToAll, authority);
  };

  const visit = async (): Promise<void> => {
    for (let stay = 1; running; stay += 1) {
      const authority = `stay ${stay} ${randomUUID().slice(0, 4)}`;
      // oxlint-disable no-await-in-loop -- one stay after the other
      await invite();
      const messages = random.between(2, 7);
      for (let n = 0; n < messages; n += 1) await untilAnswered(run, sayAs(authority));
      if (random.chance(0.3)) await listenShortly();
      history.record({ kind: "cancelling", atMs: performance.now(), authority });
      const params = { groupId: openId, agentDid: guest.did };
      const asked = random.chance(0.5)
        ? await untilDone(run, guest, "group/leave", params, ["PROXY_NOT_FOUND"])
        : await untilDone(run, host, "group/remove", params);
      history.record({ kind: "invalidated", begunAtMs: asked.begunAtMs, atMs: asked.atMs, authority });
      stays.ended += 1;
      for (let n = 0; n < 3; n += 1) {
        const late = await postInGroup(run, sayAs(authority));
        stays.tried += 1;
        const { begunAtMs, atMs } = late;
        const accepted = hasWorked(late);
        history.record({
          kind: "used",
          begunAtMs,
          atMs,
          authority,
          via: "a send in the group",
          accepted,
          boot: program.boots(),
        });
      }
      await listenShortly();
      // oxlint-enable no-await-in-loop
    }
  };

  const loops = [...stable.map(sendToAll), visit()];
  return {
    fanned: () => fanned,
    stays: () => stays,
    absent,
    async stop() {
      running = false;
      await Promise.all(loops);
    },
  };
}
