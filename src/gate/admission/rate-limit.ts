/**
 * Requests, frames and further calls of one agent in any 60 seconds, exact, and shared among those who act for it. Kept on disk,
 * so that an eviction resets nothing. Contract §6, `RATE_LIMIT_PER_AGENT`.
 */
import { AGENT_HOLDER, type Holder } from "../../authority/holder.ts";
import { GateRefusal } from "../protocol/refusal.ts";

const WINDOW_MS = 60_000;
/** Of the whole: what one device, secret or API key may use, and what is kept for the agent's own credential. */
const SHARE_OF_ONE = 1 / 2;
const SHARE_OF_AGENT = 1 / 4;
/** Calls of one holder in a window that end an authority and pass though its share is used up. */
export const ENDING_RESERVE = 10;

/** What is asked for: an ordinary request, or a call that ends an authority, for which there is a reserve. */
export type Counted = { holder: Holder; endsAuthority?: boolean };

export type Rate = {
  /** How long to wait, in milliseconds and at most 60,000, or 0 when one more may pass; counts nothing. */
  waitMs(asked: Counted, nowMs: number): number;
  /** Counts one that passes. */
  count(asked: Counted, nowMs: number): void;
  /** Writes what was counted since the last time; part of the group's commit. */
  save(): void;
};

/** The shares of a limit. @returns requests in a window: for one other holder, and for all others together */
export function sharesOf(perMinute: number): { ofOne: number; ofOthers: number } {
  return {
    ofOne: Math.max(1, Math.floor(perMinute * SHARE_OF_ONE)),
    ofOthers: Math.max(1, perMinute - Math.floor(perMinute * SHARE_OF_AGENT)),
  };
}

/** @param perMinute 0 turns the limit off, and then nothing is kept. @returns the rate of one agent */
export function createRate(sql: SqlStorage, perMinute: number): Rate {
  if (perMinute === 0) return { waitMs: () => 0, count: () => {}, save: () => {} };
  const { ofOne, ofOthers } = sharesOf(perMinute);
  const all = createWindow();
  const others = createWindow();
  const holders = new Map<string, Window>();
  const unsaved = new Map<string, Set<number>>();
  let latestMs = -Infinity;
  let forgottenThroughMs = -Infinity;
  let isForgetful = false;
  let clockWentBackTo: number | null = null;

  const windowOf = (name: string): Window => {
    let window = holders.get(name);
    if (window === undefined) holders.set(name, (window = createWindow()));
    return window;
  };

  const add = (name: string, atMs: number, count: number): void => {
    windowOf(name).add(atMs, count);
    latestMs = Math.max(latestMs, atMs);
    if (isReserve(name)) return;
    all.add(atMs, count);
    if (name !== AGENT_HOLDER) others.add(atMs, count);
  };

  for (const row of sql.exec<{ holder: string; at_ms: number; count: number }>(
    "SELECT holder, at_ms, count FROM rate_windows ORDER BY at_ms",
  )) {
    add(row.holder, row.at_ms, row.count);
  }

  const note = (name: string, atMs: number): void => {
    const marks = unsaved.get(name);
    if (marks === undefined) unsaved.set(name, new Set([atMs]));
    else marks.add(atMs);
  };

  /** A clock that went back counts what came after this moment as of this moment: nobody waits longer than a window. */
  const followClock = (nowMs: number): void => {
    if (latestMs <= nowMs) return;
    latestMs = nowMs;
    clockWentBackTo = Math.min(clockWentBackTo ?? Infinity, nowMs);
    all.clampTo(nowMs);
    others.clampTo(nowMs);
    for (const marks of unsaved.values()) for (const atMs of marks) if (atMs > nowMs) marks.delete(atMs);
    for (const [name, window] of holders) if (window.clampTo(nowMs)) note(name, nowMs);
  };

  const forget = (nowMs: number): void => {
    followClock(nowMs);
    const throughMs = nowMs - WINDOW_MS;
    if (all.oldestMs() > throughMs && holdersOldestMs() > throughMs) return;
    all.forget(throughMs);
    others.forget(throughMs);
    for (const [name, window] of holders) {
      window.forget(throughMs);
      if (window.total() === 0) holders.delete(name);
    }
    for (const marks of unsaved.values()) for (const atMs of marks) if (atMs <= throughMs) marks.delete(atMs);
    forgottenThroughMs = throughMs;
    isForgetful = true;
  };

  const holdersOldestMs = (): number => {
    let oldest = Infinity;
    for (const window of holders.values()) oldest = Math.min(oldest, window.oldestMs());
    return oldest;
  };

  const ordinaryWaitMs = (holder: Holder, nowMs: number): number => {
    const full = [all.total() >= perMinute ? all : null];
    if (holder !== AGENT_HOLDER) {
      const own = holders.get(holder);
      full.push(own !== undefined && own.total() >= ofOne ? own : null, others.total() >= ofOthers ? others : null);
    }
    let wait = 0;
    for (const window of full) if (window !== null) wait = Math.max(wait, 1, window.oldestMs() + WINDOW_MS - nowMs);
    return wait;
  };

  return {
    waitMs({ holder, endsAuthority = false }, nowMs) {
      forget(nowMs);
      const waitMs = ordinaryWaitMs(holder, nowMs);
      if (waitMs === 0 || !endsAuthority) return waitMs;
      const reserve = holders.get(reserveOf(holder));
      return reserve === undefined || reserve.total() < ENDING_RESERVE ? 0 : waitMs;
    },
    count({ holder, endsAuthority = false }, nowMs) {
      forget(nowMs);
      const name = endsAuthority && ordinaryWaitMs(holder, nowMs) > 0 ? reserveOf(holder) : holder;
      add(name, nowMs, 1);
      note(name, nowMs);
    },
    save() {
      if (clockWentBackTo !== null) sql.exec("DELETE FROM rate_windows WHERE at_ms > ?", clockWentBackTo);
      clockWentBackTo = null;
      for (const [name, marks] of unsaved) {
        for (const atMs of marks) {
          sql.exec(
            "INSERT INTO rate_windows (holder, at_ms, count) VALUES (?, ?, ?) ON CONFLICT (at_ms, holder) DO UPDATE SET count = excluded.count",
            name,
            atMs,
            holders.get(name)?.at(atMs) ?? 0,
          );
        }
      }
      unsaved.clear();
      if (isForgetful) sql.exec("DELETE FROM rate_windows WHERE at_ms <= ?", forgottenThroughMs);
      isForgetful = false;
    },
  };
}

const RESERVE = "reserve ";
const reserveOf = (holder: Holder): string => `${RESERVE}${holder}`;
const isReserve = (name: string): boolean => name.startsWith(RESERVE);

/** How many at which millisecond, oldest first; those of one group share theirs. */
type Window = {
  total(): number;
  /** Infinity when there are none. */
  oldestMs(): number;
  at(atMs: number): number;
  add(atMs: number, count: number): void;
  forget(throughMs: number): void;
  /** Counts everything later as of this moment. @returns whether there was any */
  clampTo(nowMs: number): boolean;
};

function createWindow(): Window {
  const counts = new Map<number, number>();
  let total = 0;
  const add = (atMs: number, count: number): void => {
    counts.set(atMs, (counts.get(atMs) ?? 0) + count);
    total += count;
  };
  const remove = (atMs: number, count: number): void => {
    counts.delete(atMs);
    total -= count;
  };
  return {
    total: () => total,
    oldestMs() {
      for (const atMs of counts.keys()) return atMs;
      return Infinity;
    },
    at: (atMs) => counts.get(atMs) ?? 0,
    add,
    forget(throughMs) {
      for (const [atMs, count] of counts) {
        if (atMs > throughMs) return;
        remove(atMs, count);
      }
    },
    clampTo(nowMs) {
      let later = 0;
      for (const [atMs, count] of counts) {
        if (atMs <= nowMs) continue;
        remove(atMs, count);
        later += count;
      }
      if (later > 0) add(nowMs, later);
      return later > 0;
    },
  };
}

/** Counts one request. @throws GateRefusal when it is too many */
export function countRequest(rate: Rate, asked: Counted, nowMs: number): void {
  const waitMs = rate.waitMs(asked, nowMs);
  if (waitMs > 0) throw new GateRefusal("gate-rate-exceeded", waitMs);
  rate.count(asked, nowMs);
}

/**
 * Counts a call of a batch after its first, as a frame is counted: a batch saves requests, not what they may ask for.
 *
 * @returns why it may not be made now, or null
 */
export function countFurtherCall(rate: Rate, asked: Counted, nowMs: number): GateRefusal["refusal"] | null {
  const waitMs = rate.waitMs(asked, nowMs);
  if (waitMs > 0) return new GateRefusal("gate-rate-exceeded", waitMs).refusal;
  rate.count(asked, nowMs);
  return null;
}
