/** How a call places the fences of its change: in its own gate in the same turn, in the others by a call each. */
import type { CallContext } from "../../call/context.ts";
import type { GroupFence } from "../../call/group-fence.ts";
import { withDeadline } from "../../resilience/deadline.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { PEER_TIMEOUT_MS } from "../peer-gates.ts";
import { placeGroupFence } from "./fences.ts";

/**
 * Places a fence in all the gates that it belongs into.
 *
 * @throws ProxyError 503 when a gate is out of reach: then the fence stays pending in D1, and the same call may be made again
 */
export async function placeFences(
  ctx: CallContext,
  fence: GroupFence,
  gates: readonly { agentDid: AgentDid }[],
): Promise<void> {
  try {
    await placeGroupFence(
      ctx,
      fence,
      gates.map(({ agentDid }) => agentDid),
      async (at, what) => {
        if (ctx.gate !== null && ctx.agentDid === at) ctx.gate.fenceGroup(what);
        else await withDeadline(PEER_TIMEOUT_MS, () => ctx.gates.of(at).fenceGroup(what));
      },
    );
  } catch (error) {
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", { reason: "group-fence-failed", cause: error });
  }
}
