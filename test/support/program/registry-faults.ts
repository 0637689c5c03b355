/** The ways in which a registry of the tests' own fails. */
import { randomBytes } from "node:crypto";
import { type Fault, keysDocument, reply } from "./registry-server.ts";

/** Connections are cut. */
export const resetting: Fault = ({ response }) => void response.socket?.resetAndDestroy();
/** Taken, and never answered. */
export const hanging: Fault = () => {};
/** Answered rightly, so many milliseconds later. */
export const slow =
  (ms: number): Fault =>
  ({ response, right, later }) =>
    later(() => reply(response, right), ms);
export const failing: Fault = ({ response }) => reply(response, { status: 500, body: "broken" });
/** Bytes that are nothing. */
export const junk: Fault = ({ response }) =>
  void response.writeHead(200, { "Content-Type": "application/json" }).end(randomBytes(200));
/** Ends in the middle, having said how long it would be. */
export const truncated: Fault = ({ request, response, later }) => {
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": "5000" });
  response.write('{"keys":[');
  later(() => request.socket.destroy(), 20);
};
/** A byte of the right answer now and then: each arrives in time, the document never does. */
export const trickling: Fault = ({ response, right, later }) => {
  response.writeHead(right.status === 204 ? 200 : right.status);
  let sent = 0;
  const drip = (): void => {
    response.write(right.body.charAt(sent) || " ");
    sent += 1;
    if (!response.destroyed) later(drip, 200);
  };
  drip();
};
/** As much as the connection takes, without end. */
export const endless: Fault = ({ response }) => {
  response.writeHead(200);
  const block = " ".repeat(65_536);
  const pour = (): void => {
    while (!response.destroyed && response.write(block)) {
      // Until the connection is full or gone.
    }
    if (!response.destroyed) response.once("drain", pour);
  };
  pour();
};
/** Well-formed and wrong: a keys document without a key, a list that nobody signed, a verdict that is none. */
export const lying: Fault = ({ document, response, right }) => {
  if (document === "keys") reply(response, { status: 200, body: keysDocument() });
  else if (document === "access") reply(response, { status: 200, body: JSON.stringify({ valid: true }) });
  else reply(response, { status: 200, body: JSON.stringify({ crl: `${right.body.slice(8, -12)}AAAAAAAAAA` }) });
};
/** Sent on to where the answer is always yes; whoever follows is answered there. */
export const elsewhere =
  (url: string): Fault =>
  ({ response }) =>
    void response.writeHead(307, { Location: url }).end();
