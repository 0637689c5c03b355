/** What is wrong and since when: said at once, then once a minute at most for each thing, and once more when it is over. */

const EVERY_MS = 60_000;

/** What a connector says of itself. */
export type Complaints = {
  /** Something is wrong. @param topic what it is about; one thing wrong at a time for each */
  about(topic: string, text: string): void;
  /** It is right again, or was all the time. */
  over(topic: string): void;
  /** What is wrong at the moment. */
  current(): { topic: string; text: string; sinceMs: number; times: number }[];
};

type Open = { text: string; readonly sinceMs: number; times: number; saidAtMs: number };

/** @param say prints one line @param now milliseconds since 1970 */
export function createComplaints(say: (line: string) => void, now: () => number): Complaints {
  const open = new Map<string, Open>();
  return {
    about(topic, text) {
      const nowMs = now();
      const known = open.get(topic);
      if (known === undefined) {
        open.set(topic, { text, sinceMs: nowMs, times: 1, saidAtMs: nowMs });
        say(`${topic}: ${text}`);
        return;
      }
      known.text = text;
      known.times += 1;
      if (nowMs - known.saidAtMs < EVERY_MS) return;
      known.saidAtMs = nowMs;
      say(`${topic}: ${text}, for ${spanText(nowMs - known.sinceMs)} (${known.times} times)`);
    },
    over(topic) {
      const known = open.get(topic);
      if (known === undefined) return;
      open.delete(topic);
      say(`${topic}: well again after ${spanText(now() - known.sinceMs)} (${known.times} times)`);
    },
    current: () => [...open].map(([topic, { text, sinceMs, times }]) => ({ topic, text, sinceMs, times })),
  };
}

function spanText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
