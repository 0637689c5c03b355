/** One life of each kind of authority: it begins, is used without pause, is ended meanwhile, and is tried once more. */
import type { KeyObject } from "node:crypto";
import { type Agent, newKey, operator, pair, request, send } from "../support/program/agents.ts";
import { chatter, freshAddress, proofOf } from "./credential-clients.ts";
import {
  agentRpc,
  type Asked,
  hasWorked,
  operatorRpc,
  post,
  rpcBody,
  signMessage,
  sleep,
  type Run,
} from "./participants.ts";

type Device = { id: string; privateKey: KeyObject; token: string; epoch: number };
/** A credential that has ended, and how it is tried. */
export type Ended = { authority: string; via: string; attempt: () => Promise<Asked> };

export type Ledger = {
  /** Whose devices, keys and secrets live and die. */
  agent: Agent;
  /** Who gets all that is sent. */
  peer: Agent;
  used(authority: string, via: string, asked: Asked): void;
  /** Its end was answered with success. */
  invalidated(ended: Ended, asked: Asked): void;
  tryAgain(ended: Ended): Promise<void>;
};

export type Lives = {
  /** As often as they should come up. */
  all: readonly (() => Promise<void>)[];
  /** Counts once more what ended API keys have left in the store. */
  countAgain(): Promise<void>;
};

export function createLives(run: Run, { agent, peer, used, invalidated, tryAgain }: Ledger): Lives {
  const { program, history, random } = run;

  const asDevice = (device: Device, path: string, body: string, token = device.token) => {
    const headers = {
      ...proofOf(device.privateKey, path, body),
      ...freshAddress(),
      Authorization: `Device ${token}`,
      "X-Claw-Agent-Did": agent.did,
    };
    return run.ask(`device ${path}`, () => send(program.url, { method: "POST", path, body }, headers));
  };
  /** A message of the same sender under an authority that goes on: what comes behind it was committed after it. */
  const mark = async (from: Agent): Promise<void> => {
    await post(run, signMessage(from, peer));
  };
  /** Messages without pause, until told to end; what is under way then is waited for. */
  const stream = (from: Agent, authority: string): { stop(): Promise<void> } => {
    let goesOn = true;
    const lane = async (): Promise<void> => {
      while (goesOn) {
        // oxlint-disable no-await-in-loop -- one after the other is what a lane is
        const asked = await post(run, signMessage(from, peer, { authority }));
        used(authority, "hook", asked);
        // It may be down.
        if (!hasWorked(asked)) await sleep(60);
        // oxlint-enable no-await-in-loop
      }
    };
    const lanes = [lane(), lane(), lane()];
    return {
      async stop() {
        goesOn = false;
        await Promise.all(lanes);
      },
    };
  };
  const newcomer = async (name: string): Promise<Agent | null> => {
    const { privateKey, x } = newKey();
    const made = await run.ask("register", () =>
      operator(run.registryUrl, "POST", "/v1/agents", { name, framework: "test", publicKey: x }),
    );
    if (!hasWorked(made)) return null;
    const { agentDid, ownerDid, ait, access, refreshToken } = made.body as unknown as {
      agentDid: string;
      ownerDid: string;
      ait: string;
      access: { token: string };
      refreshToken: string;
    };
    const known: Agent = {
      did: agentDid,
      ownerDid,
      ait,
      accessToken: access.token,
      refreshToken,
      privateKey,
      publicX: x,
    };
    run.known.set(known.did, known);
    const met = await run.ask("pair", () => pair(program.url, known, peer));
    return hasWorked(met) ? known : null;
  };

  const claim = async (device: Omit<Device, "token" | "epoch">): Promise<Device | null> => {
    const body = JSON.stringify({ agentDid: agent.did, deviceId: device.id });
    const path = "/v1/devices/claim";
    const asked = await run.ask("claim", () =>
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
    const requested = await agentRpc(run, agent, "device.pair.request", {
      publicKey: x,
      label: "d",
      scopes: ["relay", "send"],
    });
    const { requestId, digest, deviceId } = requested.result;
    if (!hasWorked(requested)) return null;
    const approved = await operatorRpc(run, "device.pair.approve", { agentDid: agent.did, requestId, digest });
    return hasWorked(approved) ? claim({ id: String(deviceId), privateKey }) : null;
  };

  /** One life of a device: used over HTTP and over its socket, then rotated or revoked while it sends. */
  const deviceLife = async (): Promise<void> => {
    const device = await newDevice();
    if (device === null) return;
    const authority = `device ${device.id}/${device.epoch}`;
    const ticket = await asDevice(device, "/v1/relay/tickets", "{}");
    used(authority, "http", ticket);
    const socket = hasWorked(ticket)
      ? await chatter(run, agent, String(ticket.body["ticket"]), peer.did, authority)
      : null;
    await sleep(random.between(0, 60));
    const method = random.pick(["device.token.rotate", "device.token.revoke", "device.pair.remove"]);
    const ended = await operatorRpc(run, method, { agentDid: agent.did, deviceId: device.id });
    if (!hasWorked(ended)) {
      socket?.stop();
      return;
    }
    const over: Ended = { authority, via: "http", attempt: () => asDevice(device, "/v1/relay/tickets", "{}") };
    invalidated(over, ended);
    await mark(agent);
    await tryAgain(over);
    await sleep(30);
    socket?.stop();
  };

  const sharedLife = async (): Promise<void> => {
    const rotated = await operatorRpc(run, "shared.auth.rotate", { agentDid: agent.did });
    if (!hasWorked(rotated)) return;
    const { generation, secret } = rotated.result;
    const authority = `shared ${String(generation)}`;
    const attempt = (): Promise<Asked> =>
      run.ask("shared", () =>
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
    const ticket = await attempt();
    used(authority, "http", ticket);
    const socket = hasWorked(ticket)
      ? await chatter(run, agent, String(ticket.body["ticket"]), peer.did, authority)
      : null;
    await sleep(random.between(0, 60));
    const again = await operatorRpc(run, "shared.auth.rotate", { agentDid: agent.did });
    if (hasWorked(again)) {
      const over: Ended = { authority, via: "http", attempt };
      invalidated(over, again);
      await mark(agent);
      await tryAgain(over);
    }
    await sleep(30);
    socket?.stop();
  };

  /** One life of an agent: it writes over HTTP and over its socket until it is revoked, or until its key is replaced. */
  const agentLife = async (): Promise<void> => {
    const mortal = await newcomer("short-lived");
    if (mortal === null) return;
    const authority = `agent ${mortal.did}`;
    const attempt = (): Promise<Asked> =>
      random.chance(0.5)
        ? run.ask("peers", () => request(program.url, mortal, { method: "GET", path: "/pair/peers" }))
        : post(run, signMessage(mortal, peer, { authority }));
    const ticket = await run.ask("relay ticket", () =>
      request(program.url, mortal, { method: "POST", path: "/v1/relay/tickets", body: "{}" }),
    );
    const socket = hasWorked(ticket)
      ? await chatter(run, mortal, String(ticket.body["ticket"]), peer.did, authority)
      : null;
    const messages = stream(mortal, authority);
    await sleep(random.between(0, 150));
    const key = random.chance(0.5) ? newKey() : null;
    const ended = await run.ask(key === null ? "revoke" : "rekey", () =>
      key === null
        ? operator(program.url, "POST", "/v1/agents/revoke", { agentDid: mortal.did })
        : operator(program.url, "POST", "/v1/agents/rekey", { agentDid: mortal.did, publicKey: key.x }),
    );
    if (hasWorked(ended)) {
      const over: Ended = { authority, via: "http", attempt };
      invalidated(over, ended);
      if (key !== null) {
        const { ait, access } = ended.body as unknown as { ait: string; access: { token: string } };
        const renewed = { ...mortal, ait, accessToken: access.token, privateKey: key.privateKey, publicX: key.x };
        run.known.set(mortal.did, renewed);
        await mark(renewed);
      }
      await tryAgain(over);
    }
    await sleep(30);
    socket?.stop();
    await messages.stop();
  };

  /** One life of an API key: it makes tasks until it is deleted; what it has left in the store is counted then and at the end. */
  const keyLife = async (): Promise<void> => {
    const made = await operatorRpc(run, "apikey/create", {
      agentDid: agent.did,
      name: "k",
      scopes: ["tasks:read", "tasks:write"],
    });
    if (!hasWorked(made)) return;
    const { apiKeyId, serviceAccountId, key } = made.result as Record<string, string>;
    const authority = `apikey ${apiKeyId}`;
    const attempt = async (): Promise<Asked> => {
      const body = JSON.stringify(rpcBody("task/create", { agentDid: agent.did }));
      const asked = await run.ask("task by key", () =>
        send(
          program.url,
          { method: "POST", path: "/rpc", body },
          { "Content-Type": "application/json", Authorization: `Bearer ${key}`, ...freshAddress() },
        ),
      );
      return "error" in asked.body ? { ...asked, outcome: 400 } : asked;
    };
    let goesOn = true;
    const lane = async (): Promise<void> => {
      while (goesOn) {
        // oxlint-disable no-await-in-loop -- one after the other is what a lane is
        const asked = await attempt();
        used(authority, "task", asked);
        if (!hasWorked(asked)) await sleep(60);
        // oxlint-enable no-await-in-loop
      }
    };
    const lanes = [lane(), lane()];
    try {
      await sleep(random.between(20, 150));
      const ended = await operatorRpc(run, "apikey/delete", { agentDid: agent.did, apiKeyId });
      if (!hasWorked(ended)) return;
      const over: Ended = { authority, via: "http", attempt };
      invalidated(over, ended);
      await countEffects(authority, String(serviceAccountId), "ended");
      counted.set(authority, String(serviceAccountId));
      await tryAgain(over);
    } finally {
      goesOn = false;
      await Promise.all(lanes);
    }
  };
  const counted = new Map<string, string>();
  const countEffects = async (authority: string, serviceAccountId: string, moment: "ended" | "last"): Promise<void> => {
    const [row] = await program.query(
      `SELECT COUNT(*) AS tasks FROM tasks WHERE creator_service_account_id = '${serviceAccountId}'`,
    );
    history.record({ kind: "effects", atMs: performance.now(), authority, moment, count: Number(row?.["tasks"]) });
  };

  /** One life of a pairing: the one side writes until the other ends it. */
  const pairLife = async (): Promise<void> => {
    const stranger = await newcomer("stranger");
    if (stranger === null) return;
    const authority = `pairing ${stranger.did}`;
    const messages = stream(stranger, authority);
    await sleep(random.between(0, 150));
    const body = JSON.stringify({ peerAgentDid: stranger.did });
    history.record({ kind: "cancelling", atMs: performance.now(), authority });
    const ended = await run.ask("unpair", () =>
      request(program.url, peer, { method: "POST", path: "/pair/remove", body }),
    );
    if (hasWorked(ended)) {
      const over: Ended = {
        authority,
        via: "hook",
        attempt: () => post(run, signMessage(stranger, peer, { authority })),
      };
      invalidated(over, ended);
      await tryAgain(over);
    }
    await messages.stop();
  };

  return {
    all: [deviceLife, deviceLife, sharedLife, agentLife, agentLife, keyLife, pairLife],
    async countAgain() {
      for (const [authority, serviceAccountId] of counted) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        await countEffects(authority, serviceAccountId, "last");
      }
    },
  };
}
