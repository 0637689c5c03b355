/** The remote graph of the settings: an engine of the field, or a service of this product's own shape. */
import type { Config } from "../../config.ts";
import { graphAddress } from "../../wire/graph-address.ts";
import { createLog } from "../../telemetry/log.ts";
import { count } from "../../telemetry/metrics.ts";
import { createOpenFga } from "./openfga.ts";
import type { RemoteGraph } from "./remote-call.ts";
import { createRemoteGraph } from "./service.ts";
import { createSpiceDb } from "./spicedb.ts";

const CREATORS = { openfga: createOpenFga, spicedb: createSpiceDb, service: createRemoteGraph } as const;

/** One graph an isolate and setting: its breaker remembers. */
const graphs = new WeakMap<Config, RemoteGraph>();

/** @returns the remote graph of the settings; null while the graph is D1's */
export function remoteGraphOf(config: Config): RemoteGraph | null {
  const known = graphs.get(config);
  if (known !== undefined) return known;
  const address = graphAddress(config.authzGraph);
  if (address === null) return null;
  const graph = CREATORS[address.kind]({
    url: address.url,
    token: config.authzGraphToken,
    model: config.authzGraphModel,
    settings: config,
    fetch: (url, init) => fetch(url, init),
    now: Date.now,
    pause: (ms) => scheduler.wait(ms),
    random: Math.random,
    log: createLog({ dependency: "authz" }),
    count,
  });
  graphs.set(config, graph);
  return graph;
}
