import { figure, type Row, SCENE } from "../row.ts";

const SILENCE_MS = 300;

const loneMessage: Row = {
  name: "lone-message",
  about: "one message on an idle system: how long after its 202 the recipient holds it",
  async run(bench) {
    const proxy = await bench.proxy();
    const load = bench.load();
    await load.prepare({ ...SCENE, url: proxy.url });
    await load.lone({ url: proxy.url, count: 3, silenceMs: SILENCE_MS });
    const { acceptedMs, pushedAfterMs } = await load.lone({
      url: proxy.url,
      count: bench.quick ? 8 : 12,
      silenceMs: SILENCE_MS,
    });
    return {
      figures: [figure("request to 202", "ms", acceptedMs), figure("202 to pushed", "ms", pushedAfterMs, "≤ 20")],
    };
  },
};

export default loneMessage;
