/** `AUTHZ_GRAPH` and the two settings beside it (contract §6): which remote graph, and where. */
import { isUlid } from "./ulid.ts";
import { parseUrl } from "./url.ts";

/** Of an engine, `url` is what the paths of its API stand behind; without a slash at its end. */
export type GraphAddress = { kind: "openfga" | "spicedb" | "service"; url: string };

const ENGINE = /^(openfga|spicedb)\+(https?:\/\/.+)$/u;
/** OpenFGA's store ids are ULIDs. */
const STORE_PATH = /^\/stores\/[0-9A-HJKMNP-TV-Z]{26}$/u;
const LOOPBACK: ReadonlySet<string> = new Set(["127.0.0.1", "localhost", "[::1]"]);

/**
 * Takes the setting apart: `openfga+https://host/stores/<id>`, `spicedb+https://host`, or the http(s) URL of a service. An engine
 * gets a credential with each call, so it is reached by plain http on this very machine alone.
 *
 * @returns null for `d1` and for what is no such address
 */
export function graphAddress(setting: string): GraphAddress | null {
  const [, engine, address = ""] = ENGINE.exec(setting) ?? [];
  const url = parseUrl(engine === undefined ? setting : address);
  if (url === null || url.username !== "" || url.password !== "" || url.hash !== "") return null;
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  if (engine === undefined) return { kind: "service", url: setting.replace(/\/+$/u, "") };
  if (url.search !== "" || (url.protocol === "http:" && !LOOPBACK.has(url.hostname))) return null;
  const path = url.pathname.replace(/\/+$/u, "");
  if (engine === "openfga") return STORE_PATH.test(path) ? { kind: "openfga", url: url.origin + path } : null;
  return path === "" ? { kind: "spicedb", url: url.origin } : null;
}

/** OpenFGA takes objects of 256 bytes; `agent:` and a DID in base64url are as long with an authority of this many characters. */
const OPENFGA_AUTHORITY_MAX = 146;

export type GraphSettings = {
  /** `d1`, or what {@link graphAddress} takes apart. */
  authzGraph: string;
  /** Sent to a remote graph as a bearer token; null: none. */
  authzGraphToken: string | null;
  /** The id of OpenFGA's authorization model; null: the newest. */
  authzGraphModel: string | null;
};

/** Reads the settings of the graph. @param text a setting's text, null where it is not set */
export function readGraphSettings(
  text: (setting: string) => string | null,
  refuse: (setting: string, problem: string) => void,
): GraphSettings {
  const setting = text("AUTHZ_GRAPH") ?? "d1";
  const address = graphAddress(setting);
  const token = text("AUTHZ_GRAPH_TOKEN");
  const model = text("AUTHZ_GRAPH_MODEL");
  if (setting !== "d1" && address === null) {
    refuse(
      "AUTHZ_GRAPH",
      "must be d1, openfga+https://host/stores/<id>, spicedb+https://host, or an http(s) URL without credentials or fragment",
    );
  }
  if (token !== null && !/^[\x21-\x7e]{1,4096}$/u.test(token)) {
    refuse("AUTHZ_GRAPH_TOKEN", "must be visible ASCII of at most 4096 characters");
  }
  if (model !== null && (address?.kind !== "openfga" || !isUlid(model))) {
    refuse("AUTHZ_GRAPH_MODEL", "must be the id of an authorization model, beside an openfga+ address in AUTHZ_GRAPH");
  }
  const authority = parseUrl(text("REGISTRY_ISSUER") ?? "")?.hostname ?? "";
  if (address?.kind === "openfga" && authority.length > OPENFGA_AUTHORITY_MAX) {
    refuse(
      "AUTHZ_GRAPH",
      `names OpenFGA, whose bounds no agent of an issuer with over ${OPENFGA_AUTHORITY_MAX} characters fits`,
    );
  }
  return {
    authzGraph: address?.kind === "service" ? address.url : setting,
    authzGraphToken: token,
    authzGraphModel: model,
  };
}
