/** A process of the test of the lock: counts up in an agent's file, again and again, and says each number that it has stored. */
import { setTimeout as sleep } from "node:timers/promises";
import { openHome } from "../../../src/cli/storage/home.ts";

const home = openHome(process.env);
for (;;) {
  let number = 0;
  await home.agents.update("Scout", async (stored) => {
    process.stdout.write("in\n");
    await sleep(Math.random() * 3);
    number = Number(stored.refreshToken) + 1;
    return { ...stored, refreshToken: String(number) };
  });
  process.stdout.write(`${number}\n`);
}
