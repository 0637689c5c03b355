/** What is wrong, in one line a minute at most. */
import { expect, test } from "vitest";
import { createComplaints } from "../../src/connect/complaints.ts";

test("a thing that is wrong is said at once, once a minute with a count, and once more when it is over", () => {
  const lines: string[] = [];
  let nowMs = 0;
  const complaints = createComplaints(
    (line) => lines.push(line),
    () => nowMs,
  );
  complaints.over("program");
  for (nowMs = 0; nowMs <= 150_000; nowMs += 1_000) complaints.about("program", "answered 500");
  complaints.about("inbox", "is full");
  expect(complaints.current().map(({ topic, times }) => ({ topic, times }))).toEqual([
    { topic: "program", times: 151 },
    { topic: "inbox", times: 1 },
  ]);
  complaints.over("program");
  expect(lines).toEqual([
    "program: answered 500",
    "program: answered 500, for 1 min (61 times)",
    "program: answered 500, for 2 min (121 times)",
    "inbox: is full",
    "program: well again after 3 min (151 times)",
  ]);
});
