/** What `doctor` looks at, each a check with its own verdict and what to do about it. */
import {
  aitLifetime,
  type AgentClient,
  createInstallationClient,
  importKeys,
  type InstallationClient,
  ProblemError,
  type ServerTime,
  UnreachableError,
} from "../../client/index.ts";
import { parseAitClaims } from "../../wire/ait.ts";
import { decodeUnverifiedJws } from "../../wire/jws.ts";
import { VERSION } from "../../wire/version.ts";
import { isSecret, readCheckout } from "./local-settings.ts";
import { devicesCheckup } from "./device-checks.ts";
import { readiness } from "./readiness.ts";
import { addressFinding, hostFinding, proxyFinding } from "./route.ts";
import { adviceFor, shownFailure } from "../terminal/errors.ts";
import { failed, type Finding, finding, ok } from "./finding.ts";
import type { AgentRecord } from "../storage/agent-files.ts";
import { timeText } from "../terminal/output.ts";
import { isLoopback } from "../session/network.ts";
import type { Session } from "../session/session.ts";
import { parseUrl } from "../../wire/url.ts";

/** Refused by the server beyond this (contract §1), warned of before. */
const SKEW_FAIL_MS = 300_000;
const SKEW_WARN_MS = 30_000;
const DAY_MS = 86_400_000;

/** Everything, in the order in which one thing depends on another. */
export async function* checkup(session: Session): AsyncGenerator<Finding> {
  const set = await settings(session);
  yield set.finding;
  if (set.baseUrl === null) return;
  yield addressFinding(set.baseUrl);
  const route = proxyFinding(session.environment, set.baseUrl);
  if (route !== null) yield route;
  if (route?.verdict === "fail") return;
  const installation = createInstallationClient({ ...session.connection(set.baseUrl), timeoutMs: 10_000 });
  const { reached, version } = await reachability(installation);
  yield reached;
  if (version !== null) yield versionFinding(version);
  const isReached = reached.verdict === "ok";
  yield* checkoutSettings(session, set.baseUrl, isReached);
  if (isReached) {
    yield* readiness(installation);
    yield* time(installation, set.baseUrl);
  }
  yield await operatorToken(session, isReached);
  yield* agents(session, isReached);
  yield* devicesCheckup(session, isReached);
}

async function settings(session: Session): Promise<{ finding: Finding; baseUrl: string | null }> {
  try {
    const baseUrl = await session.baseUrl();
    return { finding: ok("settings", session.home.path), baseUrl };
  } catch (error) {
    return { finding: failed("settings", error), baseUrl: null };
  }
}

/** Clients of a server with a bad setting see a bare 503: where its checkout is at hand, the setting is named. */
async function* checkoutSettings(session: Session, baseUrl: string, isReached: boolean): AsyncGenerator<Finding> {
  const check = "settings of the checkout";
  try {
    const checkout = await readCheckout(session.workingFolder);
    if (checkout === null) return;
    const isHere = isLoopback(parseUrl(baseUrl)?.hostname ?? "");
    const bad = checkout.badSettings.filter(({ setting }) => isHere || !isSecret(setting));
    if (bad.length === 0) yield ok(check, checkout.folder);
    for (const { setting, problem, file } of bad) {
      const advice = isReached
        ? `Correct it in ${file}: what answers has another value, and a start with this one would be refused.`
        : `Correct it in ${file}, and start the server again.`;
      yield finding(check, isReached ? "warn" : "fail", `${setting} ${problem}`, advice);
    }
  } catch (error) {
    yield failed(check, error);
  }
}

async function reachability(installation: InstallationClient): Promise<{ reached: Finding; version: string | null }> {
  try {
    const { version } = await installation.health();
    return { reached: ok("reachable", "it answers"), version };
  } catch (error) {
    const { advice, ...rest } = failed("reachable", error);
    return { reached: { ...rest, advice: advice ?? "Look at the server's log." }, version: null };
  }
}

/** They understand each other across versions; what only one of them knows is refused. */
function versionFinding(server: string): Finding {
  if (server === VERSION) return ok("version", server);
  const detail = `this command is ${VERSION}, the server ${server}`;
  return finding(
    "version",
    "warn",
    detail,
    "Bring the older one up to date: what only the newer one knows is refused.",
  );
}

async function* time(installation: InstallationClient, baseUrl: string): AsyncGenerator<Finding> {
  try {
    const said = await installation.serverTime();
    yield clock(said);
    yield hostFinding(baseUrl, said.authorities);
  } catch (error) {
    yield failed("clock", error);
  }
}

function clock({ offsetMs, roundTripMs }: ServerTime): Finding {
  const off = Math.abs(offsetMs);
  const detail = `${(off / 1_000).toFixed(1)} s ${offsetMs >= 0 ? "behind" : "ahead of"} the server (± ${Math.ceil(roundTripMs / 2)} ms)`;
  const advice = "Set this machine's clock: turn NTP on.";
  if (off >= SKEW_FAIL_MS) return finding("clock", "fail", `${detail}: requests are refused beyond 300 s`, advice);
  return off >= SKEW_WARN_MS ? finding("clock", "warn", detail, advice) : ok("clock", detail);
}

async function operatorToken(session: Session, isReached: boolean): Promise<Finding> {
  try {
    if ((await session.home.operatorToken()) === null) {
      return finding("operator token", "skip", "none here; only registering, re-keying and revoking need one");
    }
    if (!isReached) return finding("operator token", "skip", "there is one; the server was not reached");
    await (await session.operator()).listAgents();
    return ok("operator token", "accepted");
  } catch (error) {
    return failed("operator token", error);
  }
}

async function* agents(session: Session, isReached: boolean): AsyncGenerator<Finding> {
  const names = await session.home.agents.names();
  if (names.length === 0)
    yield finding("agents", "warn", "there is no agent here yet", "Register one: `sallyport agent register NAME`.");
  for (const name of names) yield* agent(session, name, isReached);
  for (const name of await session.home.newKeys.names()) {
    const advice = `Run \`sallyport agent register ${name}\` again, or \`agent rekey ${name}\` where that was interrupted.`;
    yield finding(`${name}: new key`, "warn", `not confirmed: ${session.home.newKeys.path(name)}`, advice);
  }
}

async function* agent(session: Session, name: string, isReached: boolean): AsyncGenerator<Finding> {
  let record: AgentRecord | null;
  try {
    record = await session.home.agents.get(name);
    if (record === null) return;
    await importKeys(record.keys);
    yield ok(`${name}: keys`, session.home.agents.path(name));
  } catch (error) {
    yield failed(`${name}: keys`, error);
    return;
  }
  const identity = identityOf(name, record);
  yield identity;
  if (identity.verdict === "fail") return;
  if (!isReached) {
    yield finding(`${name}: access`, "skip", "the server was not reached");
    return;
  }
  const { client } = await session.named(name);
  yield* access(name, client);
}

function identityOf(name: string, record: AgentRecord): Finding {
  const check = `${name}: identity token`;
  const rekey = `Ask the operator for \`sallyport agent rekey ${name}\`.`;
  const jws = decodeUnverifiedJws(record.ait);
  const claims = jws.ok ? parseAitClaims(jws.value.claims) : jws;
  if (!claims.ok) return finding(check, "fail", `it is none: ${claims.error}`, rekey);
  if (claims.value.cnf.jwk.x !== record.keys.x)
    return finding(check, "fail", "it is bound to another key than the one here", rekey);
  if (claims.value.sub !== record.agentDid) return finding(check, "fail", "it is of another agent", rekey);
  const { expiresAtMs } = aitLifetime(record.ait);
  const leftMs = expiresAtMs - Date.now();
  if (leftMs <= 0) return finding(check, "fail", `expired at ${timeText(expiresAtMs)}`, rekey);
  const detail = `good until ${timeText(expiresAtMs)}`;
  return leftMs < DAY_MS ? finding(check, "warn", detail, "Run `sallyport agent reissue`.") : ok(check, detail);
}

async function* access(name: string, client: AgentClient): AsyncGenerator<Finding> {
  let peers;
  try {
    peers = await client.pairing.peers();
    yield ok(
      `${name}: access`,
      `accepted; the access token is good until ${timeText(client.credential().access.expiresAtMs)}`,
    );
  } catch (error) {
    yield accessFailed(name, error);
    return;
  }
  yield peers.length === 0
    ? finding(
        `${name}: trust`,
        "warn",
        "no peers: no agent can write to it, and it to none",
        "`sallyport pair start`, and `pair confirm` on the other side.",
      )
    : ok(`${name}: trust`, `${peers.length} ${peers.length === 1 ? "peer" : "peers"}`);
  try {
    const { deadLetters } = await client.deadLetters.list({ limit: 1 });
    yield deadLetters.length === 0
      ? ok(`${name}: dead letters`, "none")
      : finding(`${name}: dead letters`, "warn", "there are some", "See `sallyport dead-letters list`.");
  } catch (error) {
    yield failed(`${name}: dead letters`, error);
  }
}

function accessFailed(name: string, error: unknown): Finding {
  const check = `${name}: access`;
  if (error instanceof UnreachableError) return failed(check, error);
  // The refresh token is what the server does not take: a used one, or a family that has ended.
  if (error instanceof ProblemError && error.code === "PROXY_AUTH_INVALID_TOKEN") {
    return finding(
      check,
      "fail",
      `${error.message} (${error.code})`,
      `Ask the operator for \`sallyport agent rekey ${name}\`.`,
    );
  }
  const { message, code } = shownFailure(error);
  return finding(check, "fail", `${message} (${code})`, adviceFor(code));
}
