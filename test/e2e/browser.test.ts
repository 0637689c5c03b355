/** The client library in a real browser: what a web page does. Needs Chromium; without one it is left out, except on CI. */
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  type AgentClient,
  createAgentClient,
  createOperatorClient,
  generateKeys,
  type IncomingMessage,
  type OperatorClient,
} from "../../src/client/index.ts";
import { bundlePage, findChromium, openSite, type Site, startBrowser } from "./browser.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { logLines, type Proxy, startProxy } from "../support/program/proxy.ts";

const program = findChromium();
if (program === null) {
  const missing = "there is no `chromium` on this machine (Debian: apt-get install chromium)";
  console.warn(`the tests in a browser are left out: ${missing}`);
  if (process.env["CI"] !== undefined) test("CI has a browser to try it in", () => expect.fail(missing));
}

const HOUR_MS = 3_600_000;
const REVOKED = { why: "credential-ended", detail: "agent revoked", closeCode: 4001, error: null };
const profile = { agentName: "agent", humanName: "Ann" };

describe.skipIf(program === null)("a web page", () => {
  let proxy: Proxy;
  let listed: Site;
  let stranger: Site;
  let browser: Browser;
  let operator: OperatorClient;

  beforeAll(async () => {
    const script = await bundlePage();
    [listed, stranger] = [await openSite(script), await openSite(script)];
    browser = await startBrowser(program ?? "");
    const fronts = [listed, stranger].map(({ origin }) => new URL(origin).host).join();
    proxy = await startProxy({ RELAY_ALLOWED_ORIGINS: listed.origin, PUBLIC_AUTHORITIES: fronts });
    for (const site of [listed, stranger]) site.gateUrl = proxy.url;
    operator = createOperatorClient({ baseUrl: proxy.url, token: OPERATOR_TOKEN });
  });
  afterAll(async () => {
    await browser?.close();
    for (const site of [listed, stranger]) site?.close();
    await proxy?.stop();
  });

  const newAgent = async (name: string): Promise<AgentClient> => {
    const keys = await generateKeys();
    const credential = await operator.registerAgent({ name, framework: "test", publicKey: keys.publicKey });
    return createAgentClient({ baseUrl: proxy.url, keys, credential });
  };

  const pair = async (initiator: AgentClient, responder: AgentClient): Promise<void> => {
    const { ticket } = await initiator.pairing.start({ profile });
    await responder.pairing.confirm({ ticket, profile });
  };

  /** Opens the page in a profile of its own. */
  const open = async (origin: string): Promise<Page> => {
    const context = await browser.newContext();
    onTestFinished(() => context.close());
    const tab = await context.newPage();
    await tab.goto(`${origin}/page`);
    return tab;
  };

  describe("whose own site passes the proxy's routes on", () => {
    test.each([
      { what: "shows its requests' bodies", hidden: false },
      { what: "does not show its requests' bodies", hidden: true },
    ])("in a browser that $what signs with keys that never leave it, and the proxy takes it", async ({ hidden }) => {
      const tab = await open(listed.origin);
      const publicKey = await tab.evaluate(() => window.app.makeKeys());
      expect(await tab.evaluate(() => window.app.exportFailure())).toMatch(/^InvalidKeyError INVALID_KEY/);
      await tab.reload();
      if (hidden) await tab.evaluate(() => window.app.hideRequestBodies());
      const { ait, access } = await operator.registerAgent({ name: "page", framework: "test", publicKey });
      const headers = { Authorization: `Claw ${ait}`, "X-Claw-Agent-Access": access.token };
      const calls = [
        { path: "/pair/peers?x=%C3%A9&y=a%20b", init: { method: "GET", headers } },
        { path: "/v1/relay/tickets", init: { method: "POST", headers } },
        {
          path: "/pair/start",
          init: {
            method: "POST",
            headers,
            body: JSON.stringify({ initiatorProfile: { ...profile, humanName: "Åse" } }),
          },
        },
      ];
      for (const { path, init } of calls) {
        const url = proxy.url + path;
        const signed = await tab.evaluate(([to, request]) => window.app.sign(to, request), [url, init] as const);
        expect(signed).toMatchObject({ method: init.method, url, body: init.body ?? "" });
        const { body } = signed;
        const send = () =>
          fetch(url, { method: signed.method, headers: signed.headers, ...(body === "" ? {} : { body }) });
        const answer = await send();
        expect([path, answer.status, await answer.text()]).toEqual([path, 200, expect.any(String)]);
        expect(await (await send()).json()).toMatchObject({ code: "PROXY_AUTH_REPLAY" });
      }
    });

    test("is an agent like any other: it pairs, gets messages and acknowledges them, writes, and is over when revoked", async () => {
      const tab = await open(listed.origin);
      const peer = await newAgent("peer");
      const publicKey = await tab.evaluate(() => window.app.makeKeys());
      const { agentDid, ait, access, refreshToken } = await operator.registerAgent({
        name: "page",
        framework: "test",
        publicKey,
      });
      const credential = { agentDid, ait, access, refreshToken };
      await tab.evaluate(([url, own]) => window.app.beAgent(url, own), [listed.origin, credential] as const);
      const { ticket } = await peer.pairing.start({ profile });
      await tab.evaluate((given) => window.app.confirmPairing(given), ticket);
      await tab.evaluate(() => window.app.connect());
      await tab.evaluate(() => window.app.opened());

      const payloadText = '{"text": "h\u00e9llo", "n": 1.0}';
      const sent = await peer.send({ to: agentDid, payloadText, waitSeconds: 10 });
      expect(sent).toMatchObject({ state: "delivered" });
      expect(await tab.evaluate(() => window.app.messages(1))).toMatchObject([
        { deliveryId: sent.deliveryId, fromAgentDid: peer.agentDid, payloadText },
      ]);
      expect(await peer.deliveryStatus(sent.deliveryId)).toMatchObject({ state: "delivered", attempts: 1 });

      const { arrived } = listen(peer);
      const { deliveryId } = await tab.evaluate((to) => window.app.enqueue(to, { text: "back" }), peer.agentDid);
      expect(await arrived).toMatchObject({ deliveryId, fromAgentDid: agentDid, payload: { text: "back" } });
      expect(await tab.evaluate(() => window.app.receipts(1))).toEqual([`${deliveryId} delivered`]);

      await operator.revokeAgent(agentDid, "test");
      expect(await tab.evaluate(() => window.app.ended())).toEqual(REVOKED);
      expect(await tab.evaluate(() => window.app.peersFailure())).toMatch(/^ProblemError PROXY_AUTH_REVOKED/);
      expect(await tab.evaluate(() => window.app.violations())).toEqual([]);
    });
  });

  describe("of a listed origin, elsewhere than the proxy", () => {
    test("gets tickets from its own backend, and opens the relay with nothing else", async () => {
      const [own, peer] = [await newAgent("own"), await newAgent("peer")];
      await pair(own, peer);
      listed.ticket = async () => (await own.relayTicket()).ticket;
      const tab = await open(listed.origin);
      await tab.evaluate((url) => window.app.connectByTicket(url), proxy.url);
      await tab.evaluate(() => window.app.opened());

      const sent = await peer.send({ to: own.agentDid, payload: { text: "hello" }, waitSeconds: 10 });
      expect(sent).toMatchObject({ state: "delivered" });
      expect(await tab.evaluate(() => window.app.messages(1))).toMatchObject([
        { deliveryId: sent.deliveryId, fromAgentDid: peer.agentDid, payload: { text: "hello" } },
      ]);
      expect(await tab.evaluate(() => window.app.violations())).toEqual([]);
    });

    test("is told 4001 when its agent is revoked, and asks for no ticket any more", async () => {
      const own = await newAgent("own");
      listed.ticket = async () => (await own.relayTicket()).ticket;
      const tab = await open(listed.origin);
      // From here on the page's timers go by a clock that the test can turn.
      await tab.clock.install();
      await tab.reload();
      await tab.evaluate((url) => window.app.connectByTicket(url), proxy.url);
      await tab.evaluate(() => window.app.opened());
      const asked = listed.ticketsAsked();

      await operator.revokeAgent(own.agentDid, "test");
      expect(await tab.evaluate(() => window.app.ended())).toEqual(REVOKED);
      await tab.clock.fastForward(HOUR_MS);
      expect(await tab.evaluate(() => window.app.states())).toEqual(["open", "stopped"]);
      expect(await tab.evaluate((to) => window.app.enqueueFailure(to), own.agentDid)).toMatch(/RELAY_STOPPED/);
      expect(listed.ticketsAsked()).toBe(asked);
    });

    test("stops when its backend has no ticket for it any more", async () => {
      listed.ticket = () => Promise.resolve(null);
      const tab = await open(listed.origin);
      await tab.evaluate((url) => window.app.connectByTicket(url), proxy.url);
      const end = await tab.evaluate(() => window.app.ended());
      expect(end).toMatchObject({ why: "refused", closeCode: null });
    });

    test("asks again when its backend fails", async () => {
      const own = await newAgent("own");
      let failures = 2;
      listed.ticket = async () => {
        if ((failures -= 1) >= 0) throw new Error("out of order");
        return (await own.relayTicket()).ticket;
      };
      const tab = await open(listed.origin);
      await tab.evaluate((url) => window.app.connectByTicket(url), proxy.url);
      await tab.evaluate(() => window.app.opened());
      expect(await tab.evaluate(() => window.app.failure())).toMatch(/^UnreachableError UNREACHABLE/);
    });

    test("cannot make the calls of an agent by itself: the browser forbids them", async () => {
      const tab = await open(listed.origin);
      const publicKey = await tab.evaluate(() => window.app.makeKeys());
      const credential = await operator.registerAgent({ name: "page", framework: "test", publicKey });
      await tab.evaluate(([url, own]) => window.app.beAgent(url, own), [proxy.url, credential] as const);
      const complaints: string[] = [];
      tab.on("console", (message) => void complaints.push(message.text()));
      expect(await tab.evaluate(() => window.app.peersFailure())).toMatch(/^UnreachableError UNREACHABLE/);
      await expect.poll(() => complaints.join("\n")).toContain("blocked by CORS policy");
    });
  });

  describe("of any other origin", () => {
    test("is refused the socket, and its ticket stays what it was", async () => {
      const own = await newAgent("own");
      const { ticket } = await own.relayTicket();
      const given = [`${proxy.url.replace("http", "ws")}/relay/connect`, ticket] as const;
      const outside = await open(stranger.origin);
      expect(await outside.evaluate(([to, shown]) => window.app.openSocket(to, shown), given)).toBe("closed with 1006");
      const refused = { event: "relay.refused", code: "PROXY_AUTH_FORBIDDEN", pageOrigin: stranger.origin };
      await expect.poll(() => logLines(proxy.output())).toContainEqual(expect.objectContaining(refused));
      // It was the origin and nothing else: the same ticket opens a socket of the page that is listed.
      const inside = await open(listed.origin);
      expect(await inside.evaluate(([to, shown]) => window.app.openSocket(to, shown), given)).toBe("open");
    });

    test("is told that its socket does not open, and what may be missing", async () => {
      const own = await newAgent("own");
      stranger.ticket = async () => (await own.relayTicket()).ticket;
      const tab = await open(stranger.origin);
      await tab.evaluate((url) => window.app.connectByTicket(url), proxy.url);
      expect(await tab.evaluate(() => window.app.failure())).toMatch(/^UnreachableError .*RELAY_ALLOWED_ORIGINS/);
      expect(await tab.evaluate(() => window.app.states())).not.toContain("open");
    });
  });
});

/** Listens under Node. @returns its first message from an agent */
function listen(client: AgentClient): { arrived: Promise<IncomingMessage> } {
  const { promise: arrived, resolve } = Promise.withResolvers<IncomingMessage>();
  const relay = client.connect({ onMessage: (message) => void (message.fromAgentDid !== null && resolve(message)) });
  onTestFinished(() => relay.close());
  return { arrived };
}
