/** Devices, shared secrets and agents whose authority is used, ended and tried again, also after a restart. */
import { createHash, type KeyObject, randomUUID, sign } from "node:crypto";
import { type Agent, newKey, operator, pair, register, request, send } from "../e2e/agent.ts";
import { ulid } from "../e2e/relay-client.ts";
import { agentRpc, type Asked, hasWorked, operatorRpc, sleep, type Town } from "./town.ts";

type Device = { id: string; privateKey: KeyObject; token: string; epoch: number };
/** A credential that has ended, and how it is tried. */
type Ended = { authority: string; via: string; attempt: () => Promise<Asked> };

export type Authorities = { stop(): Promise<void>; tried(): number; ended(): number };

let addresses = 0;
/** An address of its own for each attempt, so that guessing is not what is refused. */
const freshAddress = (): Record<string, string> => {
  addresses += 1;
  return { "CF-Connecting-IP": `10.${(addresses >> 16) & 255}.${(addresses >> 8) & 255}.${addresses & 255}` };
};

export async function startAuthorities(town: Town): Promise<Authorities> {
  const { program, history, random } = town;
  const agent = await register(town.registryUrl, "manager");
  const peer = town.recipients[0] as Agent;
  const paired = await pair(program.url, agent, peer);
  if (paired.status !== 201) throw new Error(`the manager is not paired: ${paired.status}`);
  const past: Ended[] = [];
  let tried = 0;
  let running = true;

  const asDevice = (device: Device, path: string, body: string, token = device.token) => {
    const headers = {
      ...proofOf(device.privateKey, path, body),
      ...freshAddress(),
      Authorization: `Device ${token}`,
      "X-Claw-Agent-Did": agent.did,
    };
    return town.ask(`device ${path}`, () => send(program.url, { method: "POST", path, body }, headers));
  };
  const used = (authority: string, via: string, asked: Asked): void => {
    const { begunAtMs, atMs } = asked;
    history.record({
      kind: "used",
      begunAtMs,
      atMs,
      authority,
      via,
      accepted: hasWorked(asked),
      boot: program.boots(),
    });
  };
  const invalidated = (authority: string, asked: Asked): void => {
    history.record({ kind: "invalidated", begunAtMs: asked.begunAtMs, atMs: asked.atMs, authority });
  };
  const tryAgain = async ({ authority, via, attempt }: Ended): Promise<void> => {
    tried += 1;
    used(authority, via, await attempt());
  };
  const remember = async (ended: Ended): Promise<void> => {
    past.push(ended);
    await tryAgain(ended);
  };

  const claim = async (device: Omit<Device, "token" | "epoch">): Promise<Device | null> => {
    const body = JSON.stringify({ agentDid: agent.did, deviceId: device.id });
    const path = "/v1/devices/claim";
    const asked = await town.ask("claim", () =>
      send(
        program.url,
        { method: "POST", path, body },
        { ...proofOf(device.privateKey, path, body), ...freshAddress() },
      ),
    );
    if (!hasWorked(asked)) return null;
    return { ...device, token: String(asked.body["token"]), epoch: Number(asked.body["epoch"]) };
  };
  const newDevice = async (): Promise<Device | null> => {
    const { privateKey, x } = newKey();
    const requested = await agentRpc(town, agent, "device.pair.request", {
      publicKey: x,
      label: "d",
      scopes: ["relay", "send"],
    });
    const { requestId, digest, deviceId } = requested.result;
    if (!hasWorked(requested)) return null;
    const approved = await operatorRpc(town, "device.pair.approve", { agentDid: agent.did, requestId, digest });
    return hasWorked(approved) ? claim({ id: String(deviceId), privateKey }) : null;
  };

  /** One life of a device: used over HTTP and over its socket, then rotated or revoked while it sends. */
  const deviceLife = async (): Promise<void> => {
    const device = await newDevice();
    if (device === null) return;
    const authority = `device ${device.id}/${device.epoch}`;
    const ticket = await asDevice(device, "/v1/relay/tickets", "{}");
    used(authority, "http", ticket);
    const socket = hasWorked(ticket) ? await chatter(town, String(ticket.body["ticket"]), peer.did, authority) : null;
    await sleep(random.between(0, 60));
    const method = random.pick(["device.token.rotate", "device.token.revoke", "device.pair.remove"]);
    const ended = await operatorRpc(town, method, { agentDid: agent.did, deviceId: device.id });
    if (!hasWorked(ended)) {
      socket?.stop();
      return;
    }
    invalidated(authority, ended);
    await remember({ authority, via: "http", attempt: () => asDevice(device, "/v1/relay/tickets", "{}") });
    await sleep(30);
    socket?.stop();
  };

  const sharedLife = async (): Promise<void> => {
    const rotated = await operatorRpc(town, "shared.auth.rotate", { agentDid: agent.did });
    if (!hasWorked(rotated)) return;
    const { generation, secret } = rotated.result;
    const authority = `shared ${String(generation)}`;
    const attempt = (): Promise<Asked> =>
      town.ask("shared", () =>
        send(
          program.url,
          { method: "POST", path: "/v1/relay/tickets", body: "{}" },
          {
            Authorization: `Shared ${String(secret)}`,
            "X-Claw-Agent-Did": agent.did,
            "Content-Type": "application/json",
            ...freshAddress(),
          },
        ),
      );
    used(authority, "http", await attempt());
    const again = await operatorRpc(town, "shared.auth.rotate", { agentDid: agent.did });
    if (!hasWorked(again)) return;
    invalidated(authority, again);
    await remember({ authority, via: "http", attempt });
  };

  const agentLife = async (): Promise<void> => {
    let short: Agent | null = null;
    const made = await town.ask("register", async () => {
      short = await register(town.registryUrl, "short-lived");
      return { status: 201, headers: new Headers(), body: {} };
    });
    if (!hasWorked(made) || short === null) return;
    const mortal: Agent = short;
    const authority = `agent ${mortal.did}`;
    const attempt = (): Promise<Asked> =>
      town.ask("peers", () => request(program.url, mortal, { method: "GET", path: "/pair/peers" }));
    used(authority, "http", await attempt());
    const revoked = await town.ask("revoke", () =>
      operator(program.url, "POST", "/v1/agents/revoke", { agentDid: mortal.did }),
    );
    if (!hasWorked(revoked)) return;
    invalidated(authority, revoked);
    await remember({ authority, via: "http", attempt });
  };

  const loop = async (): Promise<void> => {
    let boot = program.boots();
    while (running) {
      // oxlint-disable no-await-in-loop -- one life after the other
      try {
        if (program.boots() !== boot) {
          boot = program.boots();
          for (let turn = 0; turn < 4 && past.length > 0; turn++) await tryAgain(random.pick(past));
        }
        await random.pick([deviceLife, deviceLife, sharedLife, agentLife])();
      } catch (error) {
        // A kill between two steps: the next life begins anew.
        if (!(error instanceof Error)) throw error;
      }
      await sleep(random.between(20, 150));
      // oxlint-enable no-await-in-loop
    }
    // At the end everything that ever ended, once more.
    for (const ended of past.slice(-150)) {
      // oxlint-disable-next-line no-await-in-loop
      await tryAgain(ended);
    }
  };
  const running$ = loop();
  return {
    tried: () => tried,
    ended: () => past.length,
    async stop() {
      running = false;
      await running$;
    },
  };
}

/** A socket that enqueues without pause; an acknowledgement of a frame that was written after the end is an effect after it. */
async function chatter(town: Town, ticket: string, to: string, authority: string): Promise<{ stop(): void } | null> {
  const socket = new WebSocket(`${town.program.url.replace("http", "ws")}/relay/connect`, [
    `sallyport.ticket.${ticket}`,
  ]);
  const opened = await new Promise<boolean>((resolve) => {
    socket.addEventListener("open", () => resolve(true));
    socket.addEventListener("error", () => resolve(false));
    socket.addEventListener("close", () => resolve(false));
  });
  if (!opened) return null;
  const sentAtMs = new Map<string, number>();
  const timer = setInterval(() => {
    // Also while it is closing: the server may still read.
    if (socket.readyState !== WebSocket.OPEN) return;
    const id = ulid();
    sentAtMs.set(id, performance.now());
    socket.send(
      JSON.stringify({
        v: 1,
        type: "enqueue",
        id,
        ts: new Date().toISOString(),
        toAgentDid: to,
        payload: { chatter: true },
      }),
    );
  }, 8);
  socket.addEventListener("message", ({ data }) => {
    const frame = JSON.parse(String(data)) as { type: string; ackId: string; accepted: boolean };
    const begunAtMs = frame.type === "enqueue_ack" ? sentAtMs.get(frame.ackId) : undefined;
    if (begunAtMs === undefined) return;
    town.history.record({
      kind: "used",
      begunAtMs,
      atMs: performance.now(),
      authority,
      via: "frame",
      accepted: frame.accepted,
      boot: town.program.boots(),
    });
  });
  return {
    stop() {
      clearInterval(timer);
      socket.close();
    },
  };
}

function proofOf(privateKey: KeyObject, path: string, body: string): Record<string, string> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const nonce = randomUUID();
  const hash = createHash("sha256").update(body).digest("base64url");
  const text = ["CLAW-PROOF-V1", "POST", path, timestamp, nonce, hash].join("\n");
  return {
    "Content-Type": "application/json",
    "X-Claw-Timestamp": timestamp,
    "X-Claw-Nonce": nonce,
    "X-Claw-Body-SHA256": hash,
    "X-Claw-Proof": sign(null, Buffer.from(text), privateKey).toString("base64url"),
  };
}
