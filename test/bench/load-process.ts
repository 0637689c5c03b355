/** The parent's end of the load process. */
import { fork } from "node:child_process";
import { join } from "node:path";
import type { LoadCommands, LoadReply, LoadRequest } from "./load.ts";

export type LoadProcess = LoadCommands & { stop(): Promise<void> };

export function startLoadProcess(): LoadProcess {
  const child = fork(join(import.meta.dirname, "load.ts"), { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let lastId = 0;

  child.on("message", ({ id, value, error }: LoadReply) => {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) asked?.resolve(value);
    else asked?.reject(new Error(error));
  });
  const ended = new Promise<void>((resolve) => {
    child.on("exit", (code) => {
      for (const { reject } of waiting.values()) reject(new Error(`the load process ended with ${code}`));
      resolve();
    });
  });

  const ask = <Name extends keyof LoadCommands>(command: Name): LoadCommands[Name] =>
    ((argument: unknown) =>
      new Promise((resolve, reject) => {
        const id = (lastId += 1);
        waiting.set(id, { resolve, reject });
        child.send({ id, command, argument } satisfies LoadRequest);
      })) as LoadCommands[Name];

  return {
    prepare: ask("prepare"),
    sign: ask("sign"),
    run: ask("run"),
    same: ask("same"),
    lone: ask("lone"),
    group: ask("group"),
    fanOut: ask("fanOut"),
    async stop() {
      child.kill();
      await ended;
    },
  };
}
