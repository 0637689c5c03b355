/** Sockets hear what becomes of a task: those of its agent and of its creator's that may read tasks, and no others. */
import { expect, test } from "vitest";
import { openRelay } from "../support/front-door.ts";
import { eventually } from "../support/gate.ts";
import { admit, createTask, pairDevice, register, result } from "../support/world.ts";

test("each change of a task is an event to its agent and its creator's agent, and not to who may not read tasks", async () => {
  const agent = await register();
  const creator = await register({ tenantId: agent.tenantId, ownerDid: agent.ownerDid });
  await admit(agent, `agent:${creator.did}`);
  await result({ kind: "operator" }, "authz/write", {
    writes: [{ object: `agent:${agent.did}`, relation: "executor", subject: `agent:${creator.did}` }],
  });
  const stranger = await register({ tenantId: agent.tenantId, ownerDid: agent.ownerDid });
  const sockets = {
    agent: await openRelay(agent, "v1"),
    creator: await openRelay(creator, "v1"),
    plain: await openRelay(await pairDevice(agent, ["relay"]), "v1"),
    stranger: await openRelay(stranger, "v1"),
  };
  const heard = (who: keyof typeof sockets) =>
    sockets[who].frames
      .filter(({ event }) => event === "task.updated")
      .map(({ payload }) => (payload as { status: string }).status);

  const { taskId } = await createTask(creator, { agentDid: agent.did });
  await result(agent, "task/update", { taskId, status: "input_required", statusMessage: "when?", result: "not told" });
  await result(creator, "task/interrupt", { taskId });
  await result(creator, "message/send", { taskId, content: "now" });
  await result(agent, "task/update", { taskId, status: "completed" });

  const all = ["input_required", "interrupted", "running", "completed"];
  await eventually(() => {
    expect(heard("agent")).toEqual(all);
    expect(heard("creator")).toEqual(all);
  });
  expect(heard("plain")).toEqual([]);
  expect(heard("stranger")).toEqual([]);
  const first = sockets.creator.frames.find(({ event }) => event === "task.updated");
  expect(first?.["payload"]).toEqual({
    taskId,
    name: null,
    agentDid: agent.did,
    status: "input_required",
    statusMessage: "when?",
    updatedAtMs: expect.any(Number),
  });
});
