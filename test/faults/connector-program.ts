/**
 * The program behind a connector, as a process that can be killed: what it has taken is on its disk before it answers. Now and
 * then it says that it cannot.
 */
import { fsyncSync, openSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";

const [port = "", log = ""] = process.argv.slice(2);
const UNAVAILABLE_SHARE = 0.03;

const file = openSync(log, "a");
// A line that a kill has cut in two ends here; it was never answered.
writeSync(file, "\n");

createServer((request, response) => {
  void text(request).then((body) => {
    if (Math.random() < UNAVAILABLE_SHARE) {
      response.writeHead(503).end();
      return;
    }
    const { deliveryId, fromAgentDid, payload } = JSON.parse(body) as Record<string, unknown>;
    writeSync(file, `${JSON.stringify({ atMs: Date.now(), deliveryId, fromAgentDid, payload })}\n`);
    fsyncSync(file);
    response.writeHead(200).end();
  });
}).listen(Number(port), "127.0.0.1");
