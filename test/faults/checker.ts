/** Reads a history afterwards and gives a number for each promise: how often it was broken. Every number has to be 0. */
import type { HistoryEvent } from "./history.ts";

export type PromiseName =
  | "lost"
  | "waiting"
  | "givenUp"
  | "acknowledgedUnkept"
  | "noncesBurnt"
  | "outOfOrder"
  | "replaysAccepted"
  | "forgeriesAccepted"
  | "effectsAfterEnd"
  | "invalidationsLost"
  | "fannedOutInPart"
  | "deliveredAfterRemoval"
  | "tasksAndTuplesApart"
  | "tasksLost"
  | "verdictsLost"
  | "invitesApart"
  | "internalErrors"
  | "hangs"
  | "neighboursRefused"
  | "neighboursSlowed";

export const PROMISES: Record<PromiseName, string> = {
  lost: "messages answered 202, neither delivered nor dead-lettered, and not waiting",
  waiting: "messages that still waited when the run had no more patience",
  givenUp: "messages dead-lettered that their recipient never refused",
  acknowledgedUnkept: "messages that a connector acknowledged and had on no disk",
  noncesBurnt: "messages refused as replays whose first attempt left nothing behind",
  outOfOrder: "messages delivered out of order of their sender",
  replaysAccepted: "replays accepted, or one message accepted or delivered as two",
  forgeriesAccepted: "forged or expired requests accepted",
  effectsAfterEnd: "effects under an ended authority",
  invalidationsLost: "invalidations that a restart undid",
  fannedOutInPart: "messages to all of a group that came to some and not to others",
  deliveredAfterRemoval: "messages of a removed member, delivered after the answer",
  tasksAndTuplesApart: "tasks without an owner's tuple, or tuples without their task",
  tasksLost: "tasks answered as made and not there, or answered as deleted and there",
  verdictsLost: "reports of what a program made of a message that were refused, or that its sender was never told of",
  invitesApart: "invites whose uses and agents are apart, or that were used oftener than they allow",
  internalErrors: "answers with status 500",
  hangs: "requests without an answer while the program was up",
  neighboursRefused: "requests of well-behaved agents refused beside hostile neighbours",
  neighboursSlowed: "answers or endings slower than promised beside hostile neighbours",
};

export type Finding = { promise: PromiseName; detail: string };

type Kind<K extends HistoryEvent["kind"]> = Extract<HistoryEvent, { kind: K }>;

export function check(events: readonly HistoryEvent[]): Finding[] {
  const of = <K extends HistoryEvent["kind"]>(kind: K): Kind<K>[] =>
    events.filter((event): event is Kind<K> => event.kind === kind);
  return [
    ...lost(of("send"), [...of("deliver"), ...of("ended"), ...of("waiting")]),
    ...waiting(of("waiting"), [...of("deliver"), ...of("ended")]),
    ...givenUp(of("send"), of("deliver"), of("ended"), of("cancelling")),
    ...of("acknowledged")
      .filter(({ isKept }) => !isKept)
      .map(({ deliveryId }): Finding => ({ promise: "acknowledgedUnkept", detail: deliveryId })),
    ...noncesBurnt(of("send"), of("deliver")),
    ...outOfOrder(of("send"), of("deliver")),
    ...replaysAccepted(of("replay"), of("send"), of("deliver")),
    ...of("forged")
      .filter(isAccepted)
      .map(({ what }): Finding => ({ promise: "forgeriesAccepted", detail: what })),
    ...usedAfterEnd(of("invalidated"), of("used"), of("boot")),
    ...sentAfterEnd(of("invalidated"), of("send"), of("deliver"), of("boot")),
    ...committedAfterEnd(of("effects")),
    ...fannedOutInPart(of("fanned"), of("deliver")),
    ...deliveredAfterRemoval(of("invalidated"), of("send"), of("deliver")),
    ...tasks(of("task"), of("stored").at(-1)),
    ...verdictsLost(of("verdict"), of("judged")),
    ...invitesApart(of("invite"), of("enrolled")),
    ...of("fault").map(({ what, status, detail }): Finding => ({
      promise: "internalErrors",
      detail: `${status} ${what} ${detail}`,
    })),
    ...of("hang").map(({ what, tookMs }): Finding => ({
      promise: "hangs",
      detail: `${what} ${Math.round(tookMs)} ms`,
    })),
    ...of("refused").map(({ key, outcome }): Finding => ({
      promise: "neighboursRefused",
      detail: `${key} ${outcome}`,
    })),
    ...of("slow").map(({ what, tookMs, limitMs, detail }): Finding => ({
      promise: "neighboursSlowed",
      detail: `${what}: ${Math.round(tookMs)} of ${Math.round(limitMs)} ms ${detail}`,
    })),
    ...of("cut").map(({ what, detail }): Finding => ({ promise: "hangs", detail: `${what} ended with ${detail}` })),
  ];
}

/** How often each promise was broken. */
export function tally(findings: readonly Finding[]): Record<PromiseName, number> {
  const counts = Object.fromEntries(Object.keys(PROMISES).map((name) => [name, 0])) as Record<PromiseName, number>;
  for (const { promise } of findings) counts[promise] += 1;
  return counts;
}

const isAccepted = ({ outcome }: { outcome: number | "unknown" }): boolean =>
  outcome !== "unknown" && outcome >= 200 && outcome < 300;

/** @param accounted what is known of messages at the end, whatever it is */
function lost(sends: Kind<"send">[], accounted: readonly { deliveryId: string }[]): Finding[] {
  const seen = new Set(accounted.map(({ deliveryId }) => deliveryId));
  return sends
    .filter((send) => isAccepted(send) && (send.deliveryId === null || !seen.has(send.deliveryId)))
    .map(({ key, deliveryId }) => ({ promise: "lost", detail: `${key} ${deliveryId}` }));
}

/** They are on disk, so nothing is lost; but what holds them up, a disk that is still full for instance, did not end with the run. */
function waiting(waits: Kind<"waiting">[], done: readonly { deliveryId: string }[]): Finding[] {
  const over = new Set(done.map(({ deliveryId }) => deliveryId));
  return waits
    .filter(({ deliveryId }) => !over.has(deliveryId))
    .map(({ deliveryId }) => ({ promise: "waiting", detail: deliveryId }));
}

/** In these runs messages wait for as long as they must; whatever else kills them than a refusal, or the end of a pairing, has lost them. */
function givenUp(
  sends: Kind<"send">[],
  delivers: Kind<"deliver">[],
  ends: Kind<"ended">[],
  cancels: Kind<"cancelling">[],
): Finding[] {
  const over = new Set(cancels.map(({ authority }) => authority));
  const excused = new Set([
    ...delivers.filter(({ isRefused }) => isRefused).map(({ deliveryId }) => deliveryId),
    ...sends
      .filter(({ authority }) => authority !== undefined && over.has(authority))
      .map(({ deliveryId }) => deliveryId),
  ]);
  const dead = new Set(ends.filter(({ state }) => state === "dead_lettered").map(({ deliveryId }) => deliveryId));
  const taken = new Set(sends.filter(isAccepted).map(({ deliveryId }) => deliveryId));
  return [...taken]
    .filter((id) => id !== null && dead.has(id) && !excused.has(id))
    .map((id) => ({ promise: "givenUp", detail: String(id) }));
}

/** Nonce and message are one commit: bytes that were never answered and are known all the same must have come. */
function noncesBurnt(sends: Kind<"send">[], delivers: Kind<"deliver">[]): Finding[] {
  const came = new Set([...delivers.map(({ key }) => key), ...sends.filter(isAccepted).map(({ key }) => key)]);
  const known = new Set(sends.filter(({ wasKnown }) => wasKnown).map(({ key }) => key));
  return [...known].filter((key) => !came.has(key)).map((key) => ({ promise: "noncesBurnt", detail: key }));
}

/**
 * A message whose 202 came before another was begun comes first. Sends that overlap have no order. Of repeats the first
 * delivery counts.
 */
function outOfOrder(sends: Kind<"send">[], delivers: Kind<"deliver">[]): Finding[] {
  const begunAtMs = new Map<string, number>();
  const answeredAtMs = new Map<string, number>();
  for (const send of sends) {
    begunAtMs.set(send.key, Math.min(begunAtMs.get(send.key) ?? Infinity, send.begunAtMs));
    // Refused as a replay says no less that it is there.
    if ((isAccepted(send) || send.wasKnown) && !answeredAtMs.has(send.key)) answeredAtMs.set(send.key, send.atMs);
  }
  const findings: Finding[] = [];
  const came = new Set<string>();
  const latestBegun = new Map<string, { atMs: number; key: string }>();
  for (const { key, sender, recipient } of delivers) {
    if (came.has(key)) continue;
    came.add(key);
    const lane = `${sender} ${recipient}`;
    const latest = latestBegun.get(lane);
    const answered = answeredAtMs.get(key);
    if (latest !== undefined && answered !== undefined && latest.atMs > answered) {
      findings.push({ promise: "outOfOrder", detail: `${key} after ${latest.key}` });
    }
    const begun = begunAtMs.get(key);
    if (begun !== undefined && begun > (latest?.atMs ?? -Infinity)) latestBegun.set(lane, { atMs: begun, key });
  }
  return findings;
}

function replaysAccepted(replays: Kind<"replay">[], sends: Kind<"send">[], delivers: Kind<"deliver">[]): Finding[] {
  const findings = replays.filter(isAccepted).map(({ key }): Finding => ({ promise: "replaysAccepted", detail: key }));
  const ids = new Map<string, string>();
  for (const { key, deliveryId } of [...sends.filter(isAccepted), ...delivers]) {
    const known = ids.get(key);
    if (deliveryId === null) continue;
    if (known === undefined) ids.set(key, deliveryId);
    else if (known !== deliveryId)
      findings.push({ promise: "replaysAccepted", detail: `${key} is ${known} and ${deliveryId}` });
  }
  return findings;
}

const endsOf = (ends: Kind<"invalidated">[]): Map<string, number> => {
  const endedAtMs = new Map<string, number>();
  for (const { authority, atMs } of ends)
    endedAtMs.set(authority, Math.min(endedAtMs.get(authority) ?? Infinity, atMs));
  return endedAtMs;
};

/** Only what was begun after the answer counts: before it, both outcomes are right. */
function usedAfterEnd(ends: Kind<"invalidated">[], uses: Kind<"used">[], boots: Kind<"boot">[]): Finding[] {
  const endedAtMs = endsOf(ends);
  return uses
    .filter(({ authority, accepted, begunAtMs }) => accepted && begunAtMs > (endedAtMs.get(authority) ?? Infinity))
    .map(({ authority, via, begunAtMs }): Finding => {
      const ended = endedAtMs.get(authority) ?? Infinity;
      const restarted = boots.some(({ atMs }) => atMs > ended && atMs < begunAtMs);
      return { promise: restarted ? "invalidationsLost" : "effectsAfterEnd", detail: `${authority} by ${via}` };
    });
}

/**
 * What was sent under an authority, by what came of it and not by what was answered. Two ways to be too late: begun after the
 * end, or behind a message of the same sender that was itself begun after the end, since what one sender commits comes in the
 * order of its commits.
 */
function sentAfterEnd(
  ends: Kind<"invalidated">[],
  sends: Kind<"send">[],
  delivers: Kind<"deliver">[],
  boots: Kind<"boot">[],
): Finding[] {
  const endedAtMs = endsOf(ends);
  const authorityOf = new Map<string, string>();
  const begunAtMs = new Map<string, number>();
  const takenEffect = new Set(delivers.map(({ key }) => key));
  for (const send of sends) {
    begunAtMs.set(send.key, Math.min(begunAtMs.get(send.key) ?? Infinity, send.begunAtMs));
    if (send.authority !== undefined) authorityOf.set(send.key, send.authority);
    if (isAccepted(send)) takenEffect.add(send.key);
  }
  const findings: Finding[] = [];
  const tooLate = new Set<string>();
  for (const key of takenEffect) {
    const authority = authorityOf.get(key);
    const ended = authority === undefined ? undefined : endedAtMs.get(authority);
    const begun = begunAtMs.get(key) ?? -Infinity;
    if (ended === undefined || begun <= ended) continue;
    tooLate.add(key);
    const restarted = boots.some(({ atMs }) => atMs > ended && atMs < begun);
    findings.push({
      promise: restarted ? "invalidationsLost" : "effectsAfterEnd",
      detail: `${authority} sent ${key} after its end`,
    });
  }
  const came = new Set<string>();
  const latestBegun = new Map<string, { atMs: number; key: string }>();
  for (const { key, sender, recipient } of delivers) {
    if (came.has(key)) continue;
    came.add(key);
    const lane = `${sender} ${recipient}`;
    const latest = latestBegun.get(lane);
    const ended = endedAtMs.get(authorityOf.get(key) ?? "");
    if (latest !== undefined && ended !== undefined && latest.atMs > ended && !tooLate.has(key)) {
      findings.push({
        promise: "effectsAfterEnd",
        detail: `${authorityOf.get(key)} committed ${key} behind ${latest.key}, which was begun after its end`,
      });
    }
    const begun = begunAtMs.get(key);
    if (begun !== undefined && begun > (latest?.atMs ?? -Infinity)) latestBegun.set(lane, { atMs: begun, key });
  }
  return findings;
}

/** One commit: all of it is there, or nothing; and what is there comes. */
function fannedOutInPart(fanned: Kind<"fanned">[], delivers: Kind<"deliver">[]): Finding[] {
  const came = new Set(delivers.map(({ key }) => key));
  return fanned.flatMap(({ keys }) => {
    const missing = keys.filter((key) => !came.has(key));
    if (missing.length === 0 || missing.length === keys.length) return [];
    return [{ promise: "fannedOutInPart" as const, detail: `nothing of ${missing.join(", ")}` }];
  });
}

/** What was on its way to a socket when the answer was given may be read a moment later. */
const READ_WITHIN_MS = 2_000;

/** Of a place in a group that has ended nothing comes afterwards, whenever it was sent. */
function deliveredAfterRemoval(
  ends: Kind<"invalidated">[],
  sends: Kind<"send">[],
  delivers: Kind<"deliver">[],
): Finding[] {
  const endedAtMs = endsOf(ends.filter(({ authority }) => authority.startsWith("stay ")));
  const stayOf = new Map(sends.map(({ key, authority }) => [key, authority ?? ""]));
  return delivers
    .filter(({ key, atMs, openedAtMs = atMs - READ_WITHIN_MS }) => {
      return openedAtMs > (endedAtMs.get(stayOf.get(key) ?? "") ?? Infinity);
    })
    .map(({ key, recipient }) => ({ promise: "deliveredAfterRemoval", detail: `${key} to ${recipient}` }));
}

function committedAfterEnd(effects: Kind<"effects">[]): Finding[] {
  const atEnd = new Map(
    effects.filter(({ moment }) => moment === "ended").map(({ authority, count }) => [authority, count]),
  );
  return effects
    .filter(({ moment, authority, count }) => moment === "last" && count > (atEnd.get(authority) ?? Infinity))
    .map(({ authority, count }) => ({
      promise: "effectsAfterEnd",
      detail: `${authority} had ${atEnd.get(authority)} effects when it ended, and then ${count}`,
    }));
}

function tasks(changes: Kind<"task">[], stored: Kind<"stored"> | undefined): Finding[] {
  if (stored === undefined) return [];
  const [rows, owned, tupled] = [new Set(stored.tasks), new Set(stored.owned), new Set(stored.tupled)];
  const findings: Finding[] = [];
  for (const task of rows)
    if (!owned.has(task)) findings.push({ promise: "tasksAndTuplesApart", detail: `${task} has no owner` });
  for (const task of tupled)
    if (!rows.has(task)) findings.push({ promise: "tasksAndTuplesApart", detail: `${task} has tuples and no row` });
  const deleted = new Set(changes.filter(({ op }) => op !== "create").map(({ taskId }) => taskId));
  for (const { op, taskId } of changes) {
    if (op === "create" && !deleted.has(taskId) && !rows.has(taskId))
      findings.push({ promise: "tasksLost", detail: `${taskId} is not there` });
    if (op === "delete" && rows.has(taskId))
      findings.push({ promise: "tasksLost", detail: `${taskId} is still there` });
  }
  return findings;
}

/** What was acknowledged may be reported on; and the sender is told of what was reported, by a receipt and when it asks. */
function verdictsLost(verdicts: Kind<"verdict">[], judged: Kind<"judged">[]): Finding[] {
  const heard = new Set(judged.map(({ deliveryId, state, by }) => `${deliveryId} ${state} ${by}`));
  return verdicts.flatMap(({ deliveryId, status, outcome }): Finding[] => {
    if (outcome !== 202) return [{ promise: "verdictsLost", detail: `${deliveryId} answered ${outcome}` }];
    const told = (by: string): boolean => heard.has(`${deliveryId} ${status} ${by}`);
    const missing = [told("receipt") || told("early") ? "" : "by receipt", told("asked") ? "" : "asked"];
    return missing
      .filter((what) => what !== "")
      .map((what) => ({ promise: "verdictsLost", detail: `${deliveryId} ${status} ${what}` }));
  });
}

/** A use and an agent are one commit, whatever was answered. */
function invitesApart(invites: Kind<"invite">[], enrolled: Kind<"enrolled">[]): Finding[] {
  return invites.flatMap(({ inviteId, uses, usesLeft, came, registered }): Finding[] => {
    const answered = enrolled.filter((event) => event.inviteId === inviteId && event.agentDid !== null);
    const missing = answered.filter(({ agentDid }) => !registered.includes(agentDid ?? ""));
    const isRight = uses - usesLeft === came.length && came.length <= uses && registered.length === came.length;
    return [
      ...(isRight ? [] : [`${inviteId}: ${uses - usesLeft} of ${uses} used, ${came.length} came`]),
      ...missing.map(({ agentDid }) => `${inviteId}: ${agentDid} is not there`),
    ].map((detail) => ({ promise: "invitesApart", detail }));
  });
}
