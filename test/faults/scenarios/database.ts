import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { startSocketSenders } from "../socket-senders.ts";
import { startAuthorities } from "../revocation-load.ts";
import { startProgram } from "../../support/program/program.ts";
import { lookAtTasks, startTasks } from "../tasks.ts";
import { settle, sleep, told } from "../participants.ts";
import { settled, startRecipients, startSenders } from "../traffic.ts";
import { QUICK_RETRIES } from "./kills.ts";
import { accepted, count, type Scenario } from "./scenario.ts";

const ROUNDS = 16;
/** Renamed, they answer every query with an error; what is in them stays. */
const TABLES = ["trust_pairs", "tasks", "relationships", "authority_epochs", "fence", "audit_log"];

export const database: Scenario = {
  name: "database",
  does: "D1 locked by another writer, and its tables out of reach, again and again",
  needs: ["locked", "outOfReach", "accepted", "triedAfterEnd", "tasksMade", "unavailable"],
  async run({ history, random, say }) {
    const program = await startProgram({ settings: { ...QUICK_RETRIES, TRUST_TTL_MS: "1000" } });
    try {
      const run = await settle(program, history, random, { pairs: 3 });
      const recipients = startRecipients(run);
      const senders = startSenders(run);
      const socketSenders = startSocketSenders(run);
      const authorities = await startAuthorities(run);
      const tasks = await startTasks(run);
      const existing = (await program.query("SELECT name FROM sqlite_master WHERE type = 'table'")).map(({ name }) =>
        String(name),
      );
      const breakable = TABLES.filter((table) => existing.includes(table));
      const done = { locked: 0, outOfReach: 0 };
      const file = databaseFile(program.stateDir);
      for (let round = 0; round < ROUNDS; round++) {
        // oxlint-disable no-await-in-loop -- one outage after the other
        await sleep(random.between(300, 1_000));
        if (random.chance(0.5)) {
          done.locked += 1;
          const other = new DatabaseSync(file);
          other.exec("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE");
          await sleep(random.between(200, 3_000));
          other.exec("ROLLBACK");
          other.close();
        } else {
          done.outOfReach += 1;
          const table = random.pick(breakable);
          await program.query(`ALTER TABLE ${table} RENAME TO ${table}_away`);
          await sleep(random.between(200, 2_000));
          await program.query(`ALTER TABLE ${table}_away RENAME TO ${table}`);
        }
        // oxlint-enable no-await-in-loop
      }
      await sleep(1_000);
      await Promise.all([senders.stop(), socketSenders.stop(), authorities.stop(), tasks.stop()]);
      await settled(run, 60_000);
      await lookAtTasks(run);
      recipients.stop();
      say(`${program.complaints().length} complaints in the log`);
      say(`answers: ${told(run)}`);
      say(`ended: ${authorities.kinds()}; seen to work before: ${authorities.worked()}`);
      return {
        ...done,
        // Those that felt it.
        unavailable: run.answers.get(503) ?? 0,
        accepted: accepted(history),
        delivered: recipients.count(),
        ended: authorities.ended(),
        triedAfterEnd: authorities.tried(),
        used: count(history, "used"),
        tasksMade: tasks.made(),
      };
    } finally {
      await program.stop();
    }
  },
};

/** The one file of D1 that has the program's tables. */
function databaseFile(stateDir: string): string {
  const files = readdirSync(stateDir, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".sqlite") && entry.parentPath.includes("d1"))
    .map((entry) => join(entry.parentPath, entry.name));
  const found = files.find((file) => {
    const db = new DatabaseSync(file, { readOnly: true });
    try {
      return db.prepare("SELECT 1 FROM sqlite_master WHERE name = 'trust_pairs'").get() !== undefined;
    } finally {
      db.close();
    }
  });
  if (found === undefined) throw new Error("the file of D1 is not where it was expected");
  return found;
}
