/** Routes that anyone may ask: the time, and whether this proxy is alive and ready. */
import type { Context, Handler } from "hono";
import { provenRequest } from "../../auth/chain.ts";
import { remoteGraphOf } from "../../authz/sync/remote.ts";
import { currentSigningKey } from "../../identity/keys/signing-keys.ts";
import { registryOf } from "../../identity/registry.ts";
import { startDeadline, withDeadline } from "../../resilience/deadline.ts";
import { errorFields } from "../../telemetry/log.ts";
import { ProxyError } from "../../wire/problem.ts";
import { VERSION } from "../../wire/version.ts";
import { chainScope, type HttpEnv } from "../middleware/request-context.ts";

const NO_STORE = { "Cache-Control": "no-store" };

/** `GET /v1/time`: what a client signs by. Its clock may be off, and a proxy in front may call this Worker by another host. */
export const time: Handler<HttpEnv> = (c) => {
  const { authorities } = provenRequest(c.req.raw, c.get("runtime").config.publicAuthorities);
  return c.json({ unixMs: Date.now(), authorities }, 200, NO_STORE);
};

/** `GET /health`: this isolate runs, and which version it is; nothing else is said. */
export const health: Handler<HttpEnv> = (c) => c.json({ status: "ok", version: VERSION }, 200, NO_STORE);

type Reach = "ok" | "failing";
/** What was seen of the stores, and when: whoever asks often does not ask them often. */
type Probed = { atMs: number; database: Reach; gate: Reach; signing: Signing };
/** `unfit`: the secret is not the one that the keys were made with. */
type Signing = Reach | "unfit";

const PROBE_EVERY_MS = 1_000;
/** Nobody's gate: it is asked for a message that it does not have, and keeps nothing. */
const PROBED_GATE = "readiness";
const probed = new WeakMap<Env, Probed>();

/**
 * `GET /ready`: each dependency with its breaker's state and the age of what is held of it; 503 while a request could not
 * be served. What fails and is still answered for by an older copy does not make it 503: such a request is served.
 */
export const ready: Handler<HttpEnv> = async (c) => {
  const { registry, registryScope, trust, config } = c.get("runtime");
  const deadline = startDeadline(config.authDeadlineMs, Date.now);
  const warm = async (): Promise<void> => {
    try {
      // A new isolate holds nothing yet: it looks before it speaks of the registry.
      await registry.warm(registryScope({ ...chainScope(c), deadline }));
    } finally {
      deadline.end();
    }
  };
  const [{ database, gate, signing }] = await Promise.all([probeStores(c), warm()]);
  const status = registry.status(Date.now());
  const trustBreaker = trust.breaker();
  // With the graph in D1 there is no more to depend on.
  const graph = remoteGraphOf(config)?.breaker.snapshot();
  const dependencies = {
    ...status,
    trust: { breaker: trustBreaker, database },
    gate: { reach: gate },
    ...(config.registryUrl === "embedded" ? { signing: shownSigning(signing) } : {}),
    ...(graph === undefined ? {} : { authz: { breaker: graph } }),
  };
  const isTrustUsable = database === "ok" || trust.size() > 0;
  const isReady = status.keys.usable && status.crl.usable && isTrustUsable && gate === "ok" && signing === "ok";
  return c.json({ status: isReady ? "ready" : "unavailable", dependencies }, isReady ? 200 : 503, {
    ...NO_STORE,
    ...(isReady ? {} : { "Retry-After": "1" }),
  });
};

async function probeStores(c: Context<HttpEnv>): Promise<Probed> {
  const nowMs = Date.now();
  const known = probed.get(c.env);
  if (known !== undefined && nowMs - known.atMs >= 0 && nowMs - known.atMs < PROBE_EVERY_MS) return known;
  const { storeTimeoutMs } = c.get("runtime").config;
  const reach = async (name: string, ask: () => Promise<unknown>): Promise<Reach> => {
    try {
      await withDeadline(storeTimeoutMs, ask);
      return "ok";
    } catch (error) {
      c.get("log").warn("ready.store_failing", { store: name, ...errorFields(error) });
      return "failing";
    }
  };
  const [database, gate, signing] = await Promise.all([
    reach("database", () => c.env.DB.prepare("SELECT 1").first()),
    reach("gate", () => c.env.GATE.getByName(PROBED_GATE).attempts("")),
    canSign(c, reach),
  ]);
  const seen: Probed = { atMs: nowMs, database, gate, signing };
  probed.set(c.env, seen);
  return seen;
}

/** What anybody may read of it names no setting. */
function shownSigning(signing: Signing): Record<string, unknown> {
  const usable = signing === "ok";
  return signing === "unfit" ? { usable, problem: "cannot sign: the secret does not fit the keys" } : { usable };
}

/** With a secret that does not fit its keys, nothing can be issued, and no list of revocations signed. */
async function canSign(
  c: Context<HttpEnv>,
  reach: (name: string, ask: () => Promise<unknown>) => Promise<Reach>,
): Promise<Signing> {
  const { config } = c.get("runtime");
  if (config.registryUrl !== "embedded") return "ok";
  let isUnfit = false;
  const reached = await reach("signing", async () => {
    try {
      await currentSigningKey(registryOf({ db: c.env.DB, config, now: Date.now }));
    } catch (error) {
      // What D1 fails with is none: the stores are spoken of by themselves.
      if (error instanceof ProxyError) {
        isUnfit = true;
        c.get("log").error("ready.signing_failing", { problem: error.reason });
      }
      throw error;
    }
  });
  return isUnfit ? "unfit" : reached;
}
