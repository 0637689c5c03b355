import { figure, interleave, type Row } from "../row.ts";
import type { Served } from "../serve.ts";

/** From starting the runtime to the first answer; the floor's time is what the runtime itself takes. */
const coldStart: Row = {
  name: "cold-start",
  about: "starting the runtime on the bundle until its first answer, beside the floor",
  long: true,
  async run(bench) {
    await bench.bundle();
    const subjects = { proxy: () => started(() => bench.proxy()), floor: () => started(() => bench.floor()) };
    const { proxy, floor } = await interleave(bench.rounds, subjects, async () => {}, 0);
    return { figures: [figure("proxy", "ms", proxy), figure("floor", "ms", floor)] };
  },
};

export default coldStart;

async function started(start: () => Promise<Served>): Promise<number> {
  const beganAtMs = performance.now();
  const served = await start();
  await (await fetch(`${served.url}/health`)).text();
  const tookMs = performance.now() - beganAtMs;
  await served.stop();
  return tookMs;
}
