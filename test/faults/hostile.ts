/** Neighbours that do all at once what a hostile agent, a hostile device and a stranger can do. Each loop is bounded in time and number. */
import { type KeyObject, randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { type Agent, hookOf, newKey, send, signedHeaders } from "../support/program/agents.ts";
import { freshAddress, proofOf } from "./credential-clients.ts";
import { agentRpc, hasWorked, operatorRpc, sleep, type Run } from "./participants.ts";

export type Neighbours = {
  /** What they did, by kind. */
  done: Record<string, number>;
  /** Ends them and waits for what is in progress. */
  stop(): Promise<void>;
};

export type HostileDevice = { id: string; privateKey: KeyObject; token: string };

/** Each of them comes from an address of its own; everybody else from others. */
const STRANGER = { "CF-Connecting-IP": "192.0.2.66" };
const HOSTILE = { "CF-Connecting-IP": "192.0.2.67" };

/** Inputs that are dear to read: a heartbeat with an unknown member of many objects, up to the longest a frame may be. */
const dearHeartbeat = (bytes: number): string =>
  JSON.stringify({
    v: 1,
    type: "heartbeat",
    id: "01K00000000000000000000000",
    ts: new Date().toISOString(),
    more: Array.from({ length: Math.floor(bytes / 8) }, (_, at) => ({ [at % 10]: 1 })),
  });

/** A device of the agent's with the least that opens a socket. */
export async function pairHostileDevice(run: Run, agent: Agent): Promise<HostileDevice> {
  const { privateKey, x } = newKey();
  const asked = await agentRpc(run, agent, "device.pair.request", { publicKey: x, scopes: ["tasks:read"] });
  const { requestId, digest, deviceId } = asked.result as Record<string, string>;
  const approved = await operatorRpc(run, "device.pair.approve", { agentDid: agent.did, requestId, digest });
  if (!hasWorked(approved)) throw new Error(`not approved: ${JSON.stringify(approved.body)}`);
  const body = JSON.stringify({ agentDid: agent.did, deviceId });
  const headers = { ...proofOf(privateKey, "/v1/devices/claim", body), ...freshAddress() };
  const claimed = await send(run.program.url, { method: "POST", path: "/v1/devices/claim", body }, headers);
  return { id: String(deviceId), privateKey, token: String(claimed.body["token"]) };
}

/** Runs work again and again until told to end; what it throws is the end of one connection and no fault. */
function startLoops(count: number, isRunning: () => boolean, work: () => Promise<void>): Promise<void>[] {
  return Array.from({ length: count }, async () => {
    while (isRunning()) {
      // oxlint-disable no-await-in-loop -- one after the other is what a loop is
      try {
        await work();
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        await sleep(100);
      }
      // oxlint-enable no-await-in-loop
    }
  });
}

/**
 * @param agent the hostile agent; it is paired with nobody but `peer`, who reads nothing
 * @param device its hostile device
 */
export function startNeighbours(
  run: Run,
  { agent, peer, device }: { agent: Agent; peer: Agent; device: HostileDevice },
): Neighbours {
  const { program } = run;
  const done = { halfBodies: 0, guesses: 0, replays: 0, floods: 0, oddTokens: 0, sockets: 0, dearFrames: 0 };
  let running = true;
  const isRunning = (): boolean => running;
  const open = new Set<WebSocket | Socket>();

  const halfBody = (): Promise<void> =>
    new Promise((resolve) => {
      const socket = connect(program.port, "127.0.0.1");
      open.add(socket);
      const head = `POST /rpc HTTP/1.1\r\nHost: x\r\nCF-Connecting-IP: 192.0.2.66\r\nAuthorization: Bearer nobody\r\nContent-Length: 1048576\r\n\r\n`;
      socket.on("connect", () => socket.write(head + "x".repeat(200_000)));
      socket.on("error", () => resolve());
      socket.on("close", () => {
        open.delete(socket);
        resolve();
      });
      done.halfBodies += 1;
    });

  const guess = async (): Promise<void> => {
    done.guesses += 1;
    const secret = randomBytes(32).toString("base64url");
    const did = done.guesses % 2 === 0 ? agent.did : agent.did.replace(/.{6}$/, "ZZZZZZ");
    const authorization = done.guesses % 3 === 0 ? `Bearer spk_${secret}` : `Shared sps_${secret}`;
    const headers = { Authorization: authorization, "X-Claw-Agent-Did": did, ...STRANGER };
    await send(program.url, { method: "POST", path: "/rpc", body: "{}" }, headers);
    await sleep(20);
  };

  const signedOnce = hookOf(peer.did, { text: "again and again" });
  const recorded = signedHeaders(agent, signedOnce);
  const replay = async (): Promise<void> => {
    done.replays += 1;
    await send(program.url, signedOnce, { ...recorded, ...HOSTILE });
    await sleep(20);
  };

  const flood = async (): Promise<void> => {
    done.floods += 1;
    const to = done.floods % 2 === 0 ? peer.did : agent.did.replace(/.{6}$/, "ZZZZZZ");
    const message = hookOf(to, { pad: "x".repeat(done.floods % 10 === 0 ? 900_000 : 1_000) });
    await send(program.url, message, { ...signedHeaders(agent, message), ...HOSTILE });
    await sleep(10);
  };

  const oddToken = async (): Promise<void> => {
    done.oddTokens += 1;
    const message = hookOf(peer.did, {});
    const token = randomBytes(24).toString("base64url");
    const headers = { ...signedHeaders(agent, message), "X-Claw-Agent-Access": token, ...HOSTILE };
    await send(program.url, message, headers);
    await sleep(20);
  };

  const ticketOf = async (): Promise<string | null> => {
    const body = "{}";
    const headers = {
      ...proofOf(device.privateKey, "/v1/relay/tickets", body),
      Authorization: `Device ${device.token}`,
      "X-Claw-Agent-Did": agent.did,
      ...HOSTILE,
    };
    const { status, body: told } = await send(
      program.url,
      { method: "POST", path: "/v1/relay/tickets", body },
      headers,
    );
    return status === 200 ? String(told["ticket"]) : null;
  };

  const frames = [dearHeartbeat(4_000), dearHeartbeat(200_000), dearHeartbeat(1_000_000)];
  const dearSocket = async (): Promise<void> => {
    const ticket = await ticketOf();
    if (ticket === null) return sleep(500);
    const url = `${program.url.replace("http", "ws")}/relay/connect`;
    const socket = new WebSocket(url, ["sallyport.v1", `sallyport.ticket.${ticket}`]);
    open.add(socket);
    await new Promise<void>((resolve) => {
      socket.addEventListener("open", () => {
        done.sockets += 1;
        for (let turn = 0; turn < 4; turn += 1) {
          done.dearFrames += 1;
          socket.send(frames[(done.dearFrames + turn) % frames.length] ?? "");
        }
      });
      socket.addEventListener("error", () => resolve());
      socket.addEventListener("close", () => resolve());
      setTimeout(() => resolve(), 3_000).unref();
    });
    open.delete(socket);
    socket.close();
    return undefined;
  };

  const loops = [
    ...startLoops(40, isRunning, halfBody),
    ...startLoops(2, isRunning, guess),
    ...startLoops(2, isRunning, replay),
    ...startLoops(2, isRunning, flood),
    ...startLoops(1, isRunning, oddToken),
    ...startLoops(40, isRunning, dearSocket),
  ];
  return {
    done,
    async stop() {
      running = false;
      for (const connection of open) if ("destroy" in connection) connection.destroy();
      await Promise.all(loops);
    },
  };
}
