/** Reads a history afterwards and gives a number for each promise: how often it was broken. Every number has to be 0. */
import type { HistoryEvent } from "./history.ts";

export type PromiseName =
  | "lost"
  | "noncesBurnt"
  | "outOfOrder"
  | "replaysAccepted"
  | "forgeriesAccepted"
  | "effectsAfterEnd"
  | "invalidationsLost"
  | "tasksAndTuplesApart"
  | "tasksLost"
  | "internalErrors"
  | "hangs";

export const PROMISES: Record<PromiseName, string> = {
  lost: "messages answered 202 and neither delivered nor dead-lettered",
  noncesBurnt: "messages refused as replays whose first attempt left nothing behind",
  outOfOrder: "messages delivered out of order of their sender",
  replaysAccepted: "replays accepted, or one signed message delivered as two",
  forgeriesAccepted: "forged or expired requests accepted",
  effectsAfterEnd: "effects under an ended authority",
  invalidationsLost: "invalidations that a restart undid",
  tasksAndTuplesApart: "tasks without an owner's tuple, or tuples without their task",
  tasksLost: "tasks answered as made and not there, or answered as deleted and there",
  internalErrors: "answers with status 500",
  hangs: "requests without an answer while the program was up",
};

export type Finding = { promise: PromiseName; detail: string };

type Kind<K extends HistoryEvent["kind"]> = Extract<HistoryEvent, { kind: K }>;

export function check(events: readonly HistoryEvent[]): Finding[] {
  const of = <K extends HistoryEvent["kind"]>(kind: K): Kind<K>[] =>
    events.filter((event): event is Kind<K> => event.kind === kind);
  return [
    ...lost(of("send"), of("deliver"), of("ended")),
    ...noncesBurnt(of("send"), of("deliver")),
    ...outOfOrder(of("send"), of("deliver")),
    ...replaysAccepted(of("replay"), of("deliver")),
    ...of("forged")
      .filter(isAccepted)
      .map(({ what }): Finding => ({ promise: "forgeriesAccepted", detail: what })),
    ...usedAfterEnd(of("invalidated"), of("used"), of("boot")),
    ...tasks(of("task"), of("stored").at(-1)),
    ...of("fault").map(({ what, status, detail }): Finding => ({
      promise: "internalErrors",
      detail: `${status} ${what} ${detail}`,
    })),
    ...of("hang").map(({ what, tookMs }): Finding => ({
      promise: "hangs",
      detail: `${what} ${Math.round(tookMs)} ms`,
    })),
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

function lost(sends: Kind<"send">[], delivers: Kind<"deliver">[], ends: Kind<"ended">[]): Finding[] {
  const seen = new Set([...delivers, ...ends].map(({ deliveryId }) => deliveryId));
  return sends
    .filter((send) => isAccepted(send) && (send.deliveryId === null || !seen.has(send.deliveryId)))
    .map(({ key, deliveryId }) => ({ promise: "lost", detail: `${key} ${deliveryId}` }));
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
    if (isAccepted(send) && !answeredAtMs.has(send.key)) answeredAtMs.set(send.key, send.atMs);
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

function replaysAccepted(replays: Kind<"replay">[], delivers: Kind<"deliver">[]): Finding[] {
  const findings = replays.filter(isAccepted).map(({ key }): Finding => ({ promise: "replaysAccepted", detail: key }));
  const ids = new Map<string, string>();
  for (const { key, deliveryId } of delivers) {
    const known = ids.get(key);
    if (known === undefined) ids.set(key, deliveryId);
    else if (known !== deliveryId)
      findings.push({ promise: "replaysAccepted", detail: `${key} came as ${known} and as ${deliveryId}` });
  }
  return findings;
}

/** Only what was begun after the answer counts: before it, both outcomes are right. */
function usedAfterEnd(ends: Kind<"invalidated">[], uses: Kind<"used">[], boots: Kind<"boot">[]): Finding[] {
  const endedAtMs = new Map<string, number>();
  for (const { authority, atMs } of ends)
    endedAtMs.set(authority, Math.min(endedAtMs.get(authority) ?? Infinity, atMs));
  return uses
    .filter(({ authority, accepted, begunAtMs }) => accepted && begunAtMs > (endedAtMs.get(authority) ?? Infinity))
    .map(({ authority, via, begunAtMs }): Finding => {
      const ended = endedAtMs.get(authority) ?? Infinity;
      const restarted = boots.some(({ atMs }) => atMs > ended && atMs < begunAtMs);
      return { promise: restarted ? "invalidationsLost" : "effectsAfterEnd", detail: `${authority} by ${via}` };
    });
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
