/** Tasks that are made and deleted while the program is broken, and what stands in the store afterwards. */
import { type Agent, register } from "../support/program/agents.ts";
import { agentRpc, hasWorked, sleep, type Run } from "./participants.ts";

export type Tasks = { made(): number; stop(): Promise<void> };

export async function startTasks(run: Run, pauseMs = 60): Promise<Tasks> {
  const { history, random } = run;
  const agent: Agent = await register(run.registryUrl, "worker");
  const standing: string[] = [];
  let made = 0;
  let running = true;

  const loop = async (): Promise<void> => {
    while (running) {
      // oxlint-disable no-await-in-loop -- one change after the other
      if (standing.length > 3 && random.chance(0.4)) {
        const taskId = standing.shift() as string;
        const deleted = await agentRpc(run, agent, "task/delete", { taskId });
        if (deleted.outcome === "unknown")
          history.record({ kind: "task", atMs: deleted.atMs, op: "delete-unanswered", taskId });
        else if (hasWorked(deleted)) history.record({ kind: "task", atMs: deleted.atMs, op: "delete", taskId });
      } else {
        const created = await agentRpc(run, agent, "task/create", {
          agentDid: agent.did,
          name: `t-${random.between(0, 1e9)}`,
        });
        const taskId = (created.result["task"] as { taskId?: string } | undefined)?.taskId;
        if (hasWorked(created) && taskId !== undefined) {
          made += 1;
          standing.push(taskId);
          history.record({ kind: "task", atMs: created.atMs, op: "create", taskId });
        }
      }
      await sleep(random.next() * pauseMs);
      // oxlint-enable no-await-in-loop
    }
  };
  const ended = loop();
  return {
    made: () => made,
    async stop() {
      running = false;
      await ended;
    },
  };
}

/** Reads tasks and their tuples from the store itself. */
export async function lookAtTasks(run: Run): Promise<void> {
  const ids = async (sql: string): Promise<string[]> => (await run.program.query(sql)).map(({ id }) => String(id));
  const tasks = await ids("SELECT task_id AS id FROM tasks");
  const tupled = await ids("SELECT DISTINCT object_id AS id FROM relationships WHERE object_type = 'task'");
  const owned = await ids(
    "SELECT DISTINCT object_id AS id FROM relationships WHERE object_type = 'task' AND relation = 'owner'",
  );
  run.history.record({ kind: "stored", atMs: performance.now(), tasks, owned, tupled });
}
