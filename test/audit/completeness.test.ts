/** What is privileged leaves an entry of the audit, with what it was about, to the word. */
import { expect, test } from "vitest";
import {
  type Agent,
  authorization,
  type Caller,
  createTask,
  fetchWorker,
  operator,
  operatorWith,
  register,
  result,
  rows,
} from "../support/world.ts";

async function call(by: Caller, method: string, path: string, what?: object): Promise<Record<string, unknown>> {
  const body = what === undefined ? "" : JSON.stringify(what);
  const headers = await authorization(by, body, { method, path });
  const answer = await fetchWorker(
    new Request(`https://proxy.example${path}`, { method, headers, ...(what === undefined ? {} : { body }) }),
  );
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}
type Entry = { actor: string; operator: string | null; details: string };
const entriesOf = (action: string, subject: string) =>
  rows<Entry>("SELECT actor, operator, details FROM audit WHERE action = ? AND subject = ?", action, subject);

test("audit: pairing started and confirmed, an identity token reissued", async () => {
  const [alice, bob]: Agent[] = [await register(), await register()];
  const { ticket } = await call(alice!, "POST", "/pair/start", {
    initiatorProfile: { agentName: "a", humanName: "A" },
  });
  await call(bob!, "POST", "/pair/confirm", { ticket, responderProfile: { agentName: "b", humanName: "B" } });
  expect(await entriesOf("pair.start", `agent:${alice!.did}`)).toMatchObject([{ actor: `agent:${alice!.did}` }]);
  const [confirmed] = await entriesOf("pair.confirm", `agent:${bob!.did}`);
  expect(JSON.parse(confirmed!.details)).toEqual({ peerAgentDid: alice!.did });
  // A ticket works once: what has no effect leaves no entry.
  await expect(
    call(bob!, "POST", "/pair/confirm", { ticket, responderProfile: { agentName: "b", humanName: "B" } }),
  ).rejects.toThrow("409");
  expect(await entriesOf("pair.confirm", `agent:${bob!.did}`)).toHaveLength(1);
  await call(alice!, "POST", "/v1/agents/reissue");
  expect(await entriesOf("identity.reissue", `agent:${alice!.did}`)).toHaveLength(1);
});

test("audit: what an operator reads of others' tasks and dead letters", async () => {
  const agent = await register();
  const reader = await operatorWith("viewer", "reader");
  const task = await createTask(agent, { agentDid: agent.did });
  await result(reader, "task/get", { taskId: task.taskId });
  await result(reader, "task/list", { agentDid: agent.did });
  await call(reader, "GET", `/v1/dead-letters?agentDid=${encodeURIComponent(agent.did)}`);
  expect(await entriesOf("task.get", `task:${task.taskId}`)).toMatchObject([{ operator: "reader" }]);
  expect(await rows("SELECT operator FROM audit WHERE action = 'task.list' AND agent_did = ?", agent.did)).toEqual([
    { operator: "reader" },
  ]);
  await expect.poll(() => entriesOf("dead-letter.list", `agent:${agent.did}`)).toMatchObject([{ operator: "reader" }]);
  // The agent's own look at its letters is nobody's business.
  await call(agent, "GET", "/v1/dead-letters");
  expect(await entriesOf("dead-letter.list", `agent:${agent.did}`)).toHaveLength(1);
});

test("audit: every tuple that an operator writes or takes, by its text", async () => {
  const agent = await register();
  const writes = Array.from({ length: 100 }, (_, at) => ({
    object: `tenant:${agent.tenantId}`,
    relation: "member",
    subject: `user:somebody-${at}`,
  }));
  await result(operator, "authz/write", { writes });
  const [entry] = await rows<Entry>(
    "SELECT details FROM audit WHERE action = 'authz.write' ORDER BY at_ms DESC, id DESC LIMIT 1",
  );
  const { writes: written } = JSON.parse(entry!.details) as { writes: string };
  expect(written.split(" ").toSorted()).toEqual(
    writes.map(({ object, relation, subject }) => `${object}#${relation}@${subject}`).toSorted(),
  );
});
