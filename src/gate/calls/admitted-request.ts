/** The calls of one admitted request, in their order, each under the caller's authority as it is then. */
import { refusalError } from "../../auth/reasons.ts";
import { holderOf } from "../../authority/holder.ts";
import type { OperatorPrincipal } from "../../authority/operator.ts";
import type { AuthorityRef } from "../../authority/reference.ts";
import type { Reply, WrittenReply } from "../../call/reply.ts";
import type { Bookmarks } from "../../database/session.ts";
import { runInOrder } from "../../rpc/batch.ts";
import { refusal } from "../../rpc/dispatcher.ts";
import { answerRpcBody } from "../../rpc/json-rpc.ts";
import { endsAuthority } from "../../rpc/permissions.ts";
import { JsonText } from "../../wire/json-text.ts";
import { countFurtherCall, type Rate } from "../admission/rate-limit.ts";
import type { GateAnswer, GateCall } from "../protocol/calls.ts";
import type { Arrivals } from "../queue/arrivals.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { Runner } from "./runner.ts";

/** The answer of a call that fetches and finds nothing. */
const NO_MESSAGES = JSON.stringify({ messages: [] });

/** A request whose caller has been admitted. */
export type AdmittedRequest = Omit<GateCall, "caller"> & {
  admitted: AuthorityRef | OperatorPrincipal;
  /** Whether its first call drew on the reserve for what ends authority. */
  endsAuthority: boolean;
};

/** What of the gate its calls need. */
type Stores = { rate: Rate; commits: GroupCommit; runner: Runner; arrivals: Arrivals };

/**
 * Runs a request's calls. The first one has been counted with the admission; the operator's are not counted.
 *
 * @returns once what was counted is on disk
 */
export async function answerRequest(stores: Stores, request: AdmittedRequest): Promise<GateAnswer> {
  const { rate, commits, runner } = stores;
  const { admitted, rpcBody } = request;
  const ref = admitted.kind === "operator" ? null : admitted;
  const bookmarks: Bookmarks = { given: request.bookmark ?? null, latest: null };
  let made = 0;
  const run = async (method: string, params: unknown): Promise<Reply> => {
    made += 1;
    const counted = ref === null ? null : { holder: holderOf(ref.principal), endsAuthority: endsAuthority(method) };
    // What drew on the reserve for endings and is none is counted as what it is.
    const isAdmitted = made === 1 && (!request.endsAuthority || endsAuthority(method));
    const limited = isAdmitted || counted === null ? null : countFurtherCall(rate, counted, Date.now());
    if (limited !== null) return refusal(refusalError(limited));
    // A copy each: what follows the end of its own authority in a batch is refused.
    return runner.run({ ...admitted }, { ...request, bookmarks }, { surface: request.surface, method, params });
  };
  const ask = (): Promise<WrittenReply[]> => {
    // A call that is made again has been counted.
    made = 0;
    return runInOrder(request.calls, ({ method, params, paramsText }) =>
      run(method, paramsText === undefined ? params : new JsonText(paramsText)),
    );
  };
  const replies = await askUntilMessages(stores.arrivals, request.waitMs ?? 0, ask);
  const rpcText =
    rpcBody === undefined ? null : await answerRpcBody(rpcBody, ({ method, params }) => run(method, params));
  // What was counted is on disk before the answer, also where no call has written anything.
  if (ref !== null && made > 1) await commits.commitChecked(() => undefined);
  return { ok: true, replies, rpcText, bookmark: bookmarks.latest };
}

/** Asks again as messages come, for so long, while the answer is that there are none; its caller's authority is looked at each time. */
async function askUntilMessages(
  arrivals: Arrivals,
  waitMs: number,
  ask: () => Promise<WrittenReply[]>,
): Promise<WrittenReply[]> {
  const untilMs = Date.now() + waitMs;
  let replies = await ask();
  for (let leftMs = waitMs; leftMs > 0 && hasNoMessages(replies); leftMs = untilMs - Date.now()) {
    // oxlint-disable no-await-in-loop -- until something has come; nothing of the caller is in flight meanwhile
    await arrivals.wait(leftMs);
    replies = await ask();
    // oxlint-enable no-await-in-loop
  }
  return replies;
}

function hasNoMessages([reply]: readonly WrittenReply[]): boolean {
  return reply?.ok === true && reply.resultText === NO_MESSAGES;
}
