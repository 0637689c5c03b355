/** Compiles src/authz/model.fga to src/authz/model.json, which the Worker bundles. Run it after every change to the model. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { transformer } from "@openfga/syntax-transformer";

const source = new URL("../src/authz/model.fga", import.meta.url);
const target = new URL("../src/authz/model.json", import.meta.url);

const compiled: unknown = transformer.transformDSLToJSONObject(readFileSync(source, "utf8"));
writeFileSync(target, `${JSON.stringify(compiled, null, 2)}\n`);
const oxfmt = new URL("../node_modules/.bin/oxfmt", import.meta.url);
const formatted = spawnSync(oxfmt.pathname, [target.pathname], { stdio: "inherit" });
if (formatted.error !== undefined) throw formatted.error;
process.exitCode = formatted.status ?? 1;
