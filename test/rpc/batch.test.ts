/** What the answers of a batch may come to. */
import { describe, expect, test } from "vitest";
import type { Reply } from "../../src/call/reply.ts";
import { BATCH_ANSWERS_MAX, runInOrder } from "../../src/rpc/batch.ts";
import { authorization, createTask, fetchWorker, operator, register, type RpcAnswer } from "../support/world.ts";

const ofSize = (characters: number): Reply => ({ ok: true, result: "x".repeat(characters) });

describe("the calls of a batch", () => {
  test("are made one after the other, each answered in its place", async () => {
    const started: number[] = [];
    const replies = await runInOrder([3, 1, 2], async (call) => {
      started.push(call);
      await Promise.resolve();
      return { ok: true, result: [call, started.length] };
    });
    expect(replies).toEqual([
      { ok: true, resultText: "[3,1]" },
      { ok: true, resultText: "[1,2]" },
      { ok: true, resultText: "[2,3]" },
    ]);
  });

  test("are not made once the answers before fill the batch, and may be made again", async () => {
    const made: number[] = [];
    const replies = await runInOrder([1, 2, 3, 4], async (call) => {
      made.push(call);
      return ofSize(BATCH_ANSWERS_MAX / 2);
    });
    expect(made).toEqual([1, 2]);
    expect(replies.map(({ ok }) => ok)).toEqual([true, true, false, false]);
    for (const reply of replies.slice(2)) expect(reply).toMatchObject({ ok: false, code: "OVERLOADED" });
  });

  test("are made however large the last answer is, which stands alone or has room before it", async () => {
    expect(await runInOrder([1], async () => ofSize(2 * BATCH_ANSWERS_MAX))).toMatchObject([{ ok: true }]);
    expect(await runInOrder([1, 2], async (call) => ofSize(call === 1 ? 1 : 2 * BATCH_ANSWERS_MAX))).toMatchObject([
      { ok: true },
      { ok: true },
    ]);
  });
});

describe("a batch of lists over /rpc", () => {
  test("is answered with as much as an isolate can hold; the rest is told to come again", async () => {
    const agent = await register();
    const text = "x".repeat(260_000);
    for (let n = 0; n < 2; n += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await createTask(agent, { agentDid: agent.did, params: { text }, metadata: { text } });
    }
    for (const caller of [operator, agent]) {
      const call = { jsonrpc: "2.0", method: "task/list", params: { agentDid: agent.did } };
      const body = JSON.stringify(Array.from({ length: 50 }, (_, id) => ({ ...call, id })));
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const headers = await authorization(caller, body);
      const request = new Request("https://proxy.example/rpc", { method: "POST", body, headers });
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const answer = await fetchWorker(request);
      expect(answer.status, caller.kind).toBe(200);
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const document = await answer.text();
      expect(document.length, caller.kind).toBeLessThan(BATCH_ANSWERS_MAX + 2 * 1_048_576);
      const answers = JSON.parse(document) as RpcAnswer[];
      const listed = answers.filter(({ result }) => result !== undefined).length;
      expect(listed, caller.kind).toBe(9);
      for (const refused of answers.slice(listed)) {
        expect(refused, caller.kind).toMatchObject({
          error: { code: -32053, data: { code: "OVERLOADED", retryable: true } },
        });
      }
      expect(answers, caller.kind).toHaveLength(50);
    }
  });
});
