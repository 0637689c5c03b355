import { toOneRow } from "../to-one.ts";

/** Sixteen senders and one recipient, as a hub has them. */
export default toOneRow({
  name: "fan-in",
  about: "sixteen senders to one recipient, closed loop, everything delivered and acknowledged, beside the floor",
  title: "fan-in",
  senders: 16,
  connectionCounts: [16],
});
