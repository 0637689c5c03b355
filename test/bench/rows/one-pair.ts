import { toOneRow } from "../to-one.ts";

/** One sender and one recipient, as a busy pair of agents is. */
export default toOneRow({
  name: "one-pair",
  about: "one sender to one recipient, closed loop, everything delivered and acknowledged, beside the floor",
  title: "pair",
  senders: 1,
  connectionCounts: [1, 2, 16],
});
