/** A conversation of two clients of the base dialect, said again frame by frame; what they hear is compared member for member. */
import { expect, test } from "vitest";
import { ask, openRelay, ORIGIN, type Frame, type RelaySocket } from "../../support/front-door.ts";
import { eventually } from "../../support/gate.ts";
import { type Agent, register, result } from "../../support/world.ts";
import conversation from "../../vectors/base-conversation.json";

type Step = { do?: string; who?: string; says?: Record<string, unknown>; hears?: Record<string, unknown> };

const ULID = /^[0-9A-HJKMNP-TV-Z]{26}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** What is heard matches where the marks do; an id that is named is remembered, and is the same from then on. */
function matches(wanted: unknown, heard: unknown, known: Map<string, string>): boolean {
  if (wanted === "<ulid>") return ULID.test(String(heard));
  if (wanted === "<ts>") return TIME.test(String(heard));
  const name = typeof wanted === "string" ? /^<id:(\w+)>$/.exec(wanted)?.[1] : undefined;
  if (name !== undefined) {
    if (!known.has(name) && ULID.test(String(heard))) known.set(name, String(heard));
    return known.get(name) === heard;
  }
  if (typeof wanted !== "object" || wanted === null) return wanted === heard;
  if (typeof heard !== "object" || heard === null || Array.isArray(wanted) !== Array.isArray(heard)) return false;
  const [keys, heardKeys] = [Object.keys(wanted), Object.keys(heard)];
  const members = heard as Record<string, unknown>;
  return (
    keys.toSorted().join() === heardKeys.toSorted().join() &&
    Object.entries(wanted).every(([key, value]) => matches(value, members[key], known))
  );
}

async function pairByTicket(alice: Agent, bob: Agent): Promise<void> {
  const started = await ask(alice, "POST", "/pair/start", {
    initiatorProfile: { agentName: "alice", humanName: "Al", proxyOrigin: ORIGIN },
  });
  const confirmed = await ask(bob, "POST", "/pair/confirm", {
    ticket: started.body["ticket"],
    responderProfile: { agentName: "bob", humanName: "Bo", proxyOrigin: "https://bob.example" },
  });
  expect(confirmed.status).toBe(201);
}

async function joinGroup(maker: Agent, guest: Agent): Promise<string> {
  const { groupId } = await result(maker, "group/create", { name: "a group" });
  const { token } = await result(maker, "group/invite", { groupId });
  await result(guest, "group/join", { token });
  return String(groupId);
}

test("two clients of the base dialect say what they always did, and hear what they understand, and nothing besides", async () => {
  const [alice, bob] = [await register(), await register()];
  const sockets: Record<string, RelaySocket> = {
    alice: await openRelay(alice, "base"),
    bob: await openRelay(bob, "base"),
  };
  const unheard: Record<string, Frame[]> = { alice: [], bob: [] };
  const seen = { alice: 0, bob: 0 } as Record<string, number>;
  const known = new Map<string, string>();
  let group = "";
  const written = (template: unknown): string =>
    JSON.stringify(template).replaceAll("$alice", alice.did).replaceAll("$bob", bob.did).replaceAll("$group", group);

  for (const step of conversation.steps as Step[]) {
    const { who = "", says, hears } = step;
    // oxlint-disable no-await-in-loop -- one after the other is what a conversation is
    if (step.do === "pair") await pairByTicket(alice, bob);
    if (step.do === "group") group = await joinGroup(bob, alice);
    if (step.do === "handle") {
      const reported = await ask(bob, "POST", "/v1/relay/delivery-receipts", {
        requestId: known.get("third"),
        senderAgentDid: alice.did,
        recipientAgentDid: bob.did,
        status: "delivered_to_webhook",
      });
      expect(reported).toMatchObject({ status: 202, body: { accepted: true } });
    }
    if (says !== undefined) {
      sockets[who]?.raw(written(says).replaceAll(/<id:(\w+)>/g, (_mark, name: string) => known.get(name) ?? "?"));
    }
    if (hears !== undefined) {
      const wanted = JSON.parse(written(hears)) as unknown;
      await eventually(() => {
        const { frames } = sockets[who] as RelaySocket;
        unheard[who]?.push(...frames.slice(seen[who]));
        seen[who] = frames.length;
        const at = unheard[who]?.findIndex((frame) => matches(wanted, frame, known)) ?? -1;
        expect(at < 0 ? { wanted, unheard: unheard[who] } : "heard").toBe("heard");
        unheard[who]?.splice(at, 1);
      });
    }
    // oxlint-enable no-await-in-loop
  }
  expect(unheard).toEqual({ alice: [], bob: [] });
  for (const socket of Object.values(sockets)) socket.close();
});
