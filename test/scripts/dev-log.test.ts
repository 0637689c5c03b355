/** What `npm run dev` shows. */
import { describe, expect, test } from "vitest";
import { shownLine } from "../../scripts/dev-log.ts";

const AT_MS = new Date(2026, 11, 1, 10, 16, 27).getTime();
const DECISION = {
  level: "warn",
  event: "auth.decision",
  requestId: "78ae9aa2-54c8-409b-844a-cc1cd8e536fa",
  route: "hooks.agent",
  credential: null,
  agentDid: "did:cdi:registry.sallyport.example:agent:01KBC0000000000000000ALICE",
  recipientDid: "did:cdi:registry.sallyport.example:agent:01KBC00000000000000000BOBB",
  durationMs: 3.4,
  outcome: "refused",
  reason: "gate-peer-fenced",
};
const decorated = `\u001b[33m▲ \u001b[43;33m[\u001b[43;30mWARNING\u001b[43;33m]\u001b[0m \u001b[1m${JSON.stringify(DECISION)}\u001b[0m`;
const readable = (line: string) => shownLine(line, "readable", AT_MS);

describe("a line for people", () => {
  test("says when, how bad, what, who to whom, why and how long, and the beginning of the request's id", () => {
    expect(readable(decorated)).toEqual({
      stream: "out",
      text: "10:16:27 warn  auth.decision …000ALICE → …0000BOBB route=hooks.agent outcome=refused reason=gate-peer-fenced 3 ms  #78ae9aa2",
    });
  });

  test("a request is its method, path, status and time", () => {
    expect(readable("[wrangler:info] POST /hooks/agent 202 Accepted (12ms)")).toEqual({
      stream: "out",
      text: "10:16:27       POST /hooks/agent 202 12 ms",
    });
  });

  test("text from elsewhere cannot move the cursor or turn the line around", () => {
    const text = readable(JSON.stringify({ level: "info", event: "x", name: "a\u001b[2Jb\u202Ec" }))?.text;
    expect(text).toContain("\\u001b[2J");
    expect(text).toContain("\\u202e");
  });
});

test("as JSON each line of the Worker's is the line that it wrote, and requests are left out", () => {
  const shown = shownLine(decorated, "json", AT_MS);
  expect(shown).toEqual({ stream: "out", text: JSON.stringify(DECISION) });
  expect(shownLine("[wrangler:info] GET /health 200 OK (3ms)", "json", AT_MS)).toBe(null);
});

test.each(["json", "readable"] as const)(
  "what is neither goes to the error stream, as an error of the build does: %s",
  (how) => {
    expect(shownLine('✘ [ERROR] Expected ";"', how, AT_MS)).toEqual({ stream: "err", text: '✘ [ERROR] Expected ";"' });
    expect(shownLine('{"level": cut', how, AT_MS)).toMatchObject({ stream: "err" });
    expect(shownLine('{"level":"info","event":"cut', how, AT_MS)).toMatchObject({ stream: "err" });
    expect(shownLine("", how, AT_MS)).toBe(null);
  },
);
