import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { isLoopback, proxySettings } from "../../../src/cli/session/network.ts";
import { newRunner } from "../program.ts";
import { startRegistry, TOKEN } from "../registry-server.ts";

const FAR = new URL("https://gate.example.com");

describe("the proxy variables", () => {
  test.each([
    [{}, null],
    [{ NO_PROXY: "x" }, null],
    [{ HTTPS_PROXY: "" }, null],
    [{ HTTPS_PROXY: "http://p:1" }, { HTTPS_PROXY: "http://p:1/" }],
    [{ https_proxy: "http://low:1", HTTPS_PROXY: "http://up:1" }, { HTTPS_PROXY: "http://low:1/" }],
    [{ HTTP_PROXY: "p:3128" }, { HTTP_PROXY: "http://p:3128/" }],
    [
      { ALL_PROXY: "https://p", HTTP_PROXY: "http://q" },
      { HTTPS_PROXY: "https://p/", HTTP_PROXY: "http://q/" },
    ],
  ])("%j mean what they mean to curl", (environment, expected) => {
    const settings = proxySettings(environment, FAR);
    if (expected === null) expect(settings).toBeNull();
    else expect(settings).toMatchObject(expected);
  });

  test.each(["socks5://user:secret@p:1", "nonsense://secret@x", "http://"])(
    "%s is none, and is not repeated",
    (value) => {
      expect(() => proxySettings({ HTTPS_PROXY: value }, FAR)).toThrow(
        expect.objectContaining({
          code: "PROXY_SETTING",
          message: expect.not.stringContaining("secret") as string,
        }) as Error,
      );
    },
  );

  test.each(["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "gate.localhost"])("never concern %s", (hostname) => {
    expect(isLoopback(hostname)).toBe(true);
    const settings = proxySettings({ HTTP_PROXY: "http://p", NO_PROXY: "a.example" }, new URL(`http://${hostname}:1`));
    const entries = settings?.NO_PROXY.split(",") ?? [];
    expect(entries).toContain("a.example");
    expect(entries.some((entry) => hostname === entry || (entry.startsWith(".") && hostname.endsWith(entry)))).toBe(
      true,
    );
  });

  test.each(["gate.example.com", "127.example.com", "1.127.0.0", "localhost.example.com"])("concern %s", (hostname) => {
    expect(isLoopback(hostname)).toBe(false);
  });
});

/** A proxy that leads every tunnel to one server, as if all names were there. */
async function startProxy(target: string): Promise<{ url: string; tunnels: string[] }> {
  const tunnels: string[] = [];
  const server: Server = createServer((_request, response) => void response.writeHead(400).end());
  server.on("connect", (request, socket: Socket) => {
    tunnels.push(request.url ?? "");
    const { hostname, port } = new URL(target);
    const onward = connect(Number(port), hostname, () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      onward.pipe(socket).pipe(onward);
    });
    for (const each of [socket, onward]) each.on("error", () => each.destroy());
    onTestFinished(() => void onward.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, tunnels };
}

describe("the command behind a proxy", () => {
  test("reaches a host that only the proxy can reach, for requests and for the relay's socket", async () => {
    const upgrades: string[] = [];
    const registry = await startRegistry(({ path }) =>
      path === "/v1/relay/tickets" ? { json: { ticket: "t", expiresAtMs: Date.now() + 30_000 } } : undefined,
    );
    registry.onUpgrade((request) => void upgrades.push(request.url ?? ""));
    const proxy = await startProxy(registry.url);
    const runner = await newRunner({ HTTP_PROXY: proxy.url, SALLYPORT_OPERATOR_TOKEN: TOKEN });
    await runner.json(["init", "--url", "http://gate.invalid:8080", "--human-name", "Ann"]);
    await runner.json(["agent", "register", "Scout"]);
    expect(new Set(proxy.tunnels)).toEqual(new Set(["gate.invalid:8080"]));
    const listening = runner.start(["listen"]);
    await expect.poll(() => upgrades, { timeout: 30_000 }).toContain("/relay/connect");
    listening.kill();
    expect((await runner.run(["doctor"])).out).toContain(`proxy: ${proxy.url}`);
  });

  test("goes to this machine directly", async () => {
    const registry = await startRegistry();
    const proxy = await startProxy("http://127.0.0.1:9");
    const runner = await newRunner({ HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url });
    await runner.json(["init", "--url", registry.url]);
    await runner.json(["init", "--url", registry.url.replace("127.0.0.1", "localhost")]);
    expect(proxy.tunnels).toEqual([]);
  });

  test("says that a variable is no proxy's address", async () => {
    const runner = await newRunner({ ALL_PROXY: "socks5://127.0.0.1:9" });
    expect(await runner.run(["init", "--url", "http://gate.invalid"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("PROXY_SETTING") as string,
    });
  });
});
