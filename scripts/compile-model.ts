/** Compiles src/authz/model.fga to model.json, which the Worker bundles, and to model.zed for SpiceDB. Run it after every change. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { transformer } from "@openfga/syntax-transformer";
import type { ModelDocument } from "../src/authz/engine/model.ts";
import { zedSchema } from "./model-zed.ts";

const source = new URL("../src/authz/model.fga", import.meta.url);
const target = new URL("../src/authz/model.json", import.meta.url);

const compiled = transformer.transformDSLToJSONObject(readFileSync(source, "utf8")) as ModelDocument;
writeFileSync(target, `${JSON.stringify(compiled, null, 2)}\n`);
writeFileSync(new URL("../src/authz/model.zed", import.meta.url), zedSchema(compiled));
const oxfmt = new URL("../node_modules/.bin/oxfmt", import.meta.url);
const formatted = spawnSync(oxfmt.pathname, [target.pathname], { stdio: "inherit" });
if (formatted.error !== undefined) throw formatted.error;
process.exitCode = formatted.status ?? 1;
