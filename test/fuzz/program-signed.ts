/** Requests that are right but for one place, to the running program: exactly those that nobody touched are accepted. */
import * as fc from "fast-check";
import { hookOf, request, signedHeaders } from "../support/program/agents.ts";
import { mutated } from "./arbitraries.ts";
import type { Callers } from "./program-callers.ts";
import { must, target } from "./target.ts";

/** What a proof, a token or the registry covers. */
const COVERED = [
  "Authorization",
  "X-Claw-Agent-Access",
  "X-Claw-Timestamp",
  "X-Claw-Nonce",
  "X-Claw-Body-SHA256",
  "X-Claw-Proof",
  "body",
  "path",
  "method",
] as const;

type Touch = { where: (typeof COVERED)[number]; seed: number; edits: string; isReplayed: boolean };

/** A request as it is put on the wire. */
export type Sent = { method: string; path: string; headers: Record<string, string>; body: string };

export type Means = {
  url: string;
  callers: Callers;
  ask(sent: Sent): Promise<{ status: number; text: string }>;
  raw(bytes: string): Promise<string>;
};

/** One edit at a place, as long as HTTP can carry it. */
function touched(text: string, { seed, edits }: Touch): string {
  const at = seed % (text.length + 1);
  return text.slice(0, at) + edits + text.slice(at + (seed % 2));
}

export const signedTargets = ({ url, callers: { agent, peer }, ask, raw }: Means) => [
  target<Touch>({
    name: "program: signed messages, touched in one place",
    weight: 2,
    acceptedAtLeast: 0.1,
    arbitrary: fc.record({
      where: fc.constantFrom(...COVERED),
      seed: fc.nat({ max: 1_000 }),
      edits: fc.constantFrom("", "", "", "A", "=", "%20", "?a", "/", "0", "-", " "),
      isReplayed: fc.boolean(),
    }),
    async holds(touch) {
      const signed = hookOf(peer.did, { fuzzed: touch.seed });
      const right = { ...signed, body: signed.body ?? "", headers: signedHeaders(agent, signed) };
      const sent: Sent = structuredClone(right);
      const { where } = touch;
      if (where === "body" || where === "path" || where === "method") sent[where] = touched(right[where], touch);
      else sent.headers[where] = touched(right.headers[where] ?? "", touch);
      if (where === "method") sent.method = touch.edits === "" ? right.method : "PUT";
      if (where === "path") sent.path = `/${sent.path.replace(/^\/+/, "")}`;
      // What a client makes of the path before it sends it is what was sent.
      const spelled = ({ path }: Sent): string => new URL(path, url).href;
      // White space around a header's value is not part of it, and of `Claw  <token>` any number is one.
      const plain = ({ headers, ...rest }: Sent): string =>
        JSON.stringify([
          { ...rest, path: spelled({ headers, ...rest }) },
          Object.entries(headers).map(([name, value]) => [name, value.trim().replace(/ +/g, " ")]),
        ]);
      const isRight = plain(sent) === plain(right);
      const answer = await ask(sent);
      must(answer.status !== 500, `${where}: ${answer.text.slice(0, 300)}`);
      must(
        isRight ? answer.status === 202 : answer.status >= 400 && answer.status < 500,
        `${where} ${JSON.stringify(where in sent ? sent[where as "body"] : sent.headers[where]).slice(0, 200)}: ${answer.status} ${answer.text.slice(0, 300)}`,
      );
      if (isRight && touch.isReplayed) {
        const again = await ask(sent);
        must(again.status === 401 && again.text.includes("PROXY_AUTH_REPLAY"), `a replay got ${again.status}`);
      }
      return isRight;
    },
  }),
  target<string>({
    name: "program: relay tickets",
    weight: 0.5,
    acceptedAtLeast: 0.1,
    arbitrary: mutated(fc.constant("T".repeat(40))).map((text) =>
      text.replace(/[^\x21-\x7e]/g, "").replaceAll(",", ""),
    ),
    async holds(shape) {
      const issued = await request(url, agent, { method: "POST", path: "/v1/relay/tickets", body: "{}" });
      const ticket = String(issued.body["ticket"]);
      // The shape says what is done to the ticket: as it is where it was left alone.
      const presented = shape === "T".repeat(40) ? ticket : shape.replace("T".repeat(20), ticket.slice(0, 20));
      const upgrade = (offered: string): Promise<string> =>
        raw(
          `GET /relay/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sallyport.ticket.${offered}\r\n\r\n`,
        );
      const answer = await upgrade(presented);
      const isTaken = answer.startsWith("HTTP/1.1 101");
      must(isTaken === (presented === ticket), `${presented}: ${answer.slice(0, 100)}`);
      if (isTaken) must(!(await upgrade(presented)).startsWith("HTTP/1.1 101"), "a ticket was taken twice");
      return isTaken;
    },
  }),
];
