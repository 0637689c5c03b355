/** What each kind of credential states about its re-check is what the document says and what the code does. */
import { describe, expect, test } from "vitest";
import document from "../../docs/security.md?raw";
import { createAgentAuthority } from "../../src/authority/agent.ts";
import { createDevices } from "../../src/authority/device/devices.ts";
import { createApiKeys } from "../../src/authority/ended-api-keys.ts";
import { RECHECKS } from "../../src/authority/rechecks.ts";
import { type AuthorityRef, endReason, fencingTokens } from "../../src/authority/reference.ts";
import { createSharedSecret } from "../../src/authority/shared-secret.ts";
import { onStorage } from "../support/gate.ts";

const SELF = "did:cdi:registry.sallyport.example:agent:01K00000000000000000000000";
const DEVICE = "d".repeat(22);
const NOW_MS = 1_000_000;

/** The rooms that decide, with one of each kind in order. */
function rooms(sql: SqlStorage) {
  const all = {
    agent: createAgentAuthority(sql),
    devices: createDevices(sql),
    shared: createSharedSecret(sql),
    apiKeys: createApiKeys(sql),
  };
  const request = {
    deviceId: DEVICE,
    publicKey: "A".repeat(43),
    label: null,
    scopes: ["admin"] as const,
    digest: "",
    requestId: "r",
    requestedBy: "",
    expiresAtMs: 0,
  };
  all.devices.pair(request, NOW_MS);
  all.shared.replace("hash", []);
  return all;
}
type Rooms = ReturnType<typeof rooms>;

const refs = {
  agent: { kind: "agent", epoch: 0, jti: "jti", expMs: NOW_MS + 1, principal: {} },
  device: { kind: "device", epoch: 1, expMs: NOW_MS + 1, principal: { deviceId: DEVICE } },
  shared: { kind: "shared", epoch: 1, expMs: null, principal: {} },
  apiKey: {
    kind: "apiKey",
    epoch: 0,
    expMs: NOW_MS + 1,
    generation: 0,
    principal: { apiKeyId: "key", lineage: [{ device: DEVICE, epoch: 1, scopes: ["admin"] }, { apiKey: "maker" }] },
  },
} as unknown as { [K in AuthorityRef["kind"]]: AuthorityRef };

const ends: { [K in AuthorityRef["kind"]]: Record<string, (all: Rooms) => unknown> } = {
  agent: {
    "revocation in the gate, all together": ({ agent }) => agent.endAll("revoked"),
    "revocation in the gate, by its name": ({ agent }) => agent.endTokens([{ jti: "jti", expMs: NOW_MS }], "revoked"),
  },
  device: {
    "epoch, by a rotation": ({ devices }) => devices.rotate(devices.get(DEVICE)!, [], null, NOW_MS),
    "epoch, by a revocation": ({ devices }) => devices.end(devices.get(DEVICE)!, "revoked", NOW_MS),
    "agent in order": ({ agent }) => agent.endAll("revoked"),
  },
  shared: {
    generation: ({ shared }) => shared.replace("another hash", []),
    "generation, with none after it": ({ shared }) => shared.replace(null, []),
    "agent in order": ({ agent }) => agent.endAll("revoked"),
  },
  apiKey: {
    "its end in the gate": ({ apiKeys }) => apiKeys.end("key"),
    generation: ({ apiKeys }) => apiKeys.endAll(),
    "what it descends from, the key that made it": ({ apiKeys }) => apiKeys.end("maker"),
    "what it descends from, the end of a device": ({ devices }) => devices.end(devices.get(DEVICE)!, "removed", NOW_MS),
    "what it descends from, a scope that a device lost": ({ devices }) =>
      devices.rotate(devices.get(DEVICE)!, [], null, NOW_MS),
    "agent in order": ({ agent }) => agent.endAll("revoked"),
  },
};

describe("the re-check of every kind of credential", () => {
  test("is in docs/security.md as it is in the code, row by row", () => {
    const told = [...document.matchAll(/^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/gm)]
      .map((row) => row.slice(1).map((cell) => cell.trim()))
      .filter(([credential]) => credential !== "credential" && !credential!.startsWith("-"));
    const stated = Object.values(RECHECKS).map(({ credential, atRequest, atFrame, fence }) => [
      credential,
      atRequest,
      atFrame,
      fence ?? "—",
    ]);
    expect(told).toEqual(stated);
  });

  const table = Object.entries(ends).flatMap(([kind, each]) =>
    Object.entries(each).map(([what, end]) => ({ kind: kind as AuthorityRef["kind"], what, end })),
  );

  test.each(table)("$kind: $what ends what is under way", async ({ kind, what, end }) => {
    await onStorage((sql) => {
      const all = rooms(sql);
      expect(endReason(all, refs[kind], NOW_MS)).toBeNull();
      end(all);
      expect(endReason(all, refs[kind], NOW_MS)).not.toBeNull();
      expect(RECHECKS[kind].atFrame).toContain(what.split(",")[0]);
    });
  });

  test.each(Object.keys(refs) as AuthorityRef["kind"][])("%s: expires where it says that it does", async (kind) => {
    await onStorage((sql) => {
      const isOver = endReason(rooms(sql), refs[kind], NOW_MS + 1) === "credential expired";
      expect(isOver).toBe(RECHECKS[kind].atFrame.includes("expiry"));
    });
  });

  test.each(Object.keys(refs) as AuthorityRef["kind"][])(
    "%s: is fenced in D1 under the name that it states",
    (kind) => {
      const stated = RECHECKS[kind].fence
        ?.replaceAll("`", "")
        .replaceAll("<did>", SELF)
        .replaceAll("<deviceId>", DEVICE)
        .replaceAll("<apiKeyId>", "key")
        .replaceAll("<scope>", "admin")
        .split(", ")
        .map((name) => name.replace(/^the makers' /, "").replace("apikey:…", "apikey:maker"));
      expect(fencingTokens(SELF, refs[kind], 0).map(({ authority }) => authority)).toEqual(stated);
    },
  );
});
