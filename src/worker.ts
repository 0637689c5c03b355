/** The door: requests, the clock, and the objects behind them. */
import { app } from "./app.ts";
import { errorResponse } from "./http/request-scope.ts";

export { Gate } from "./gate/gate.ts";
export { Housekeeping } from "./housekeeping/housekeeping.ts";

app.onError(errorResponse);

export default {
  fetch: app.fetch,
  /** Crons can be missed: this only makes sure that housekeeping is armed. */
  async scheduled(_event, env) {
    await env.HOUSEKEEPING.getByName("main").arm();
  },
} satisfies ExportedHandler<Env>;
