import { figure, type Row } from "../row.ts";
import { median, quantile } from "../statistics.ts";

/** Those who are sent to; the sender makes it 100. */
const OTHERS = 99;
const SENDS_A_ROUND = 60;

const fanOut: Row = {
  name: "fan-out",
  about: "a send to all of a group of 100, each when all have the one before",
  async run(bench) {
    const proxy = await bench.proxy();
    const load = bench.load();
    const { url } = proxy;
    await load.prepare({ senders: 1, recipients: OTHERS, fan: 1, connect: true, arePaired: false, url });
    const groupId = await load.group({ url });
    await load.fanOut({ url, groupId, count: 5 });
    const rounds: { acceptedMs: number[]; pushedAfterMs: number[] }[] = [];
    for (let round = 0; round < bench.rounds; round++) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the method
      rounds.push(await load.fanOut({ url, groupId, count: bench.quick ? 20 : SENDS_A_ROUND }));
    }
    const of = (share: number): number[] => rounds.map(({ acceptedMs }) => quantile(acceptedMs, share));
    return {
      figures: [
        figure("request to 202, p50", "ms", of(0.5)),
        figure("request to 202, p99", "ms", of(0.99), "≤ 50"),
        figure(
          "202 to the last of 99 pushed, p50",
          "ms",
          rounds.map(({ pushedAfterMs }) => median(pushedAfterMs)),
        ),
      ],
    };
  },
};

export default fanOut;
