/** Migrations only expand: refuses what rebuilds, drops or rewrites a table, since D1 then loses rows of its children. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2] ?? join(import.meta.dirname, "..", "migrations");

const REFUSED: readonly [RegExp, string][] = [
  [/\bDROP\s+(TABLE|COLUMN|VIEW)\b/i, "drops what may hold rows"],
  [/__new_|__old_/i, "rebuilds a table"],
  [/\bALTER\s+TABLE\s+\S+\s+(RENAME|DROP)\b/i, "renames or drops what running code reads"],
  [/\bforeign_keys\s*=\s*(OFF|0)\b/i, "turns foreign keys off"],
  [/\bdefer_foreign_keys\b/i, "defers foreign keys"],
  [/^\s*(UPDATE|DELETE\s+FROM|REPLACE\s+INTO)\b/im, "rewrites rows in band"],
  [/\bCREATE\s+TABLE\b[^;]*\bAS\s+SELECT\b/i, "copies a table"],
  [/\bINSERT\s+INTO\b[^;]*\bSELECT\b/i, "copies rows in band"],
];

let problems = 0;
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".sql"))
  .toSorted();
for (const [index, name] of files.entries()) {
  // A number may be missing, never be there twice: the order of two would be that of their names.
  if (!/^\d{4}_[a-z0-9_]+\.sql$/.test(name) || files[index - 1]?.slice(0, 4) === name.slice(0, 4))
    report(name, "has no number of its own, four digits, and a name in lower case");
  const text = readFileSync(join(folder, name), "utf8").replace(/--.*$/gm, "");
  // What a trigger does later is not done by the migration.
  const statements = text.replace(/\bCREATE\s+TRIGGER\b[\s\S]*?\bEND\s*;/gi, "");
  for (const [pattern, problem] of REFUSED) if (pattern.test(statements)) report(name, problem);
}
console.log(problems === 0 ? `${files.length} migrations, expand only` : `${problems} problems`);
process.exitCode = problems === 0 ? 0 : 1;

function report(name: string, problem: string): void {
  problems += 1;
  console.error(`${name}: ${problem}`);
}
