/** The door: requests, the clock, and the objects behind them. */
import { app } from "./app.ts";
import { createLog, errorFields } from "./telemetry/log.ts";
import { errorResponse } from "./http/middleware/request-context.ts";

export { Gate } from "./gate/gate.ts";
export { Housekeeping } from "./housekeeping/housekeeping.ts";

app.onError(errorResponse);

/** Whether this isolate has made sure that housekeeping is armed. */
let isArmed = false;

export default {
  fetch(request, env, ctx) {
    if (!isArmed) {
      isArmed = true;
      ctx.waitUntil(armHousekeeping(env));
    }
    return app.fetch(request, env, ctx);
  },
  /** Crons can be missed: this only makes sure that housekeeping is armed. */
  async scheduled(_event, env) {
    await armHousekeeping(env);
  },
} satisfies ExportedHandler<Env>;

async function armHousekeeping(env: Env): Promise<void> {
  try {
    await env.HOUSEKEEPING.getByName("main").arm();
  } catch (error) {
    isArmed = false;
    createLog().error("housekeeping.not_armed", errorFields(error));
  }
}
