/** The command behind a proxy that serves a Sallyport under a path and takes that path off. */
import { createServer, type IncomingMessage, request } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import { newRunner } from "../cli/program.ts";
import { OPERATOR_TOKEN } from "../support/program/agents.ts";
import { freePort } from "../support/program/ports.ts";
import { startProxy } from "../support/program/proxy.ts";

const PREFIX = "/gate";

/**
 * @param options `rewritesHost`: the server gets its own host name in `Host`, and not the one that was asked for
 * @returns the address under which everything of `target` is
 */
async function startPrefixProxy(
  target: URL,
  { rewritesHost = false, port = 0 }: { rewritesHost?: boolean; port?: number } = {},
): Promise<string> {
  const stripped = ({ url = "" }: IncomingMessage): string | null =>
    url.startsWith(`${PREFIX}/`) ? url.slice(PREFIX.length) : null;
  const server = createServer((incoming, outgoing) => {
    const path = stripped(incoming);
    if (path === null) {
      outgoing.writeHead(404).end();
      return;
    }
    const { method } = incoming;
    const headers = rewritesHost ? { ...incoming.headers, host: target.host } : incoming.headers;
    const onward = request({ host: target.hostname, port: target.port, path, method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  server.on("upgrade", (incoming, socket, head) => {
    const path = stripped(incoming);
    if (path === null) {
      socket.destroy();
      return;
    }
    const onward = connect(Number(target.port), target.hostname, () => {
      const headers = incoming.rawHeaders.flatMap((name, at) =>
        at % 2 === 0 ? [`${name}: ${incoming.rawHeaders[at + 1]}`] : [],
      );
      onward.write(`GET ${path} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`);
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    for (const each of [socket, onward]) each.on("error", () => each.destroy());
    onTestFinished(() => void onward.destroy());
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}${PREFIX}`;
}

test("an address with a path works behind a proxy that takes the path off: register, pair, send, listen", async () => {
  const program = await startProxy();
  onTestFinished(() => program.stop());
  const url = await startPrefixProxy(new URL(program.url));
  const runner = await newRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });
  await runner.json(["init", "--url", url, "--human-name", "Ann"]);
  await runner.json(["agent", "register", "alice"]);
  const { agentDid } = (await runner.json(["agent", "register", "bob"])) as { agentDid: string };
  const { ticket } = (await runner.json(["pair", "start", "--agent", "alice"])) as { ticket: string };
  await runner.json(["pair", "confirm", ticket, "--agent", "bob"]);
  const listener = runner.start(["listen", "--agent", "bob", "--json", "--count", "1"]);
  const line = once(listener.stdout ?? never(), "data") as Promise<[Buffer]>;
  expect(await runner.json(["send", agentDid, "1", "--agent", "alice", "--wait", "15"])).toMatchObject({
    state: "delivered",
  });
  expect(JSON.parse((await line)[0].toString())).toMatchObject({ message: { payload: 1 } });
});

test("a proxy that gives the server another host is refused at init with the reason, and works where the server knows it", async () => {
  const port = await freePort();
  const programs = [await startProxy(), await startProxy({ PUBLIC_AUTHORITIES: `127.0.0.1:${port}` })];
  onTestFinished(async () => void (await Promise.all(programs.map((program) => program.stop()))));
  const [unaware, aware] = programs.map(({ url }) => new URL(url));
  if (unaware === undefined || aware === undefined) throw new Error("there are two");
  const runner = await newRunner({ SALLYPORT_OPERATOR_TOKEN: OPERATOR_TOKEN });

  const refused = await startPrefixProxy(unaware, { rewritesHost: true });
  const init = await runner.run(["init", "--url", refused, "--human-name", "Ann"]);
  expect(init).toMatchObject({ code: 3, err: expect.stringMatching(/OTHER_HOST[^]*PUBLIC_AUTHORITIES/) as string });
  await runner.json(["init", "--url", refused, "--human-name", "Ann", "--no-check"]);
  await runner.json(["agent", "register", "alice"]);
  expect(await runner.run(["pair", "peers"])).toMatchObject({
    code: 5,
    err: expect.stringMatching(/PROXY_AUTH_INVALID_PROOF[^]*PUBLIC_AUTHORITIES/) as string,
  });
  expect((await runner.run(["doctor"])).out).toContain("FAIL  host");

  const url = await startPrefixProxy(aware, { rewritesHost: true, port });
  await runner.json(["init", "--url", url]);
  await runner.json(["agent", "register", "bob"]);
  expect(await runner.json(["pair", "peers", "--agent", "bob"])).toEqual({ peers: [] });
});

function never(): never {
  throw new Error("the listener has no output");
}
