/** What the databases hold: pages in use, and not the size of their files, which is the most that ever was in use at once. */
import { closeSync, openSync, readdirSync, readSync } from "node:fs";
import { join } from "node:path";

/** @property gates bytes in use by file name @property database bytes in use in D1 */
export type Disk = { gates: Map<string, number>; database: number };

/** What journals hold is written back now and then, and is not counted before. */
export function diskOf(stateDir: string): Disk {
  const disk: Disk = { gates: new Map(), database: 0 };
  for (const entry of readdirSync(stateDir, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".sqlite")) continue;
    const bytes = bytesInUse(join(entry.parentPath, entry.name));
    if (entry.parentPath.includes("Gate")) disk.gates.set(entry.name, bytes);
    else if (entry.parentPath.includes("d1")) disk.database += bytes;
  }
  return disk;
}

const HEADER_BYTES = 100;

/** As the header of a database file says it (SQLite file format §1.3): the pages there are without those on the free list. */
function bytesInUse(path: string): number {
  const header = Buffer.alloc(HEADER_BYTES);
  const file = openSync(path, "r");
  try {
    // A database that is in its journal alone so far.
    if (readSync(file, header, 0, HEADER_BYTES, 0) < HEADER_BYTES) return 0;
  } finally {
    closeSync(file);
  }
  const pageSize = header.readUInt16BE(16);
  // 65,536 does not fit into two bytes and is written as 1.
  return (pageSize === 1 ? 65_536 : pageSize) * (header.readUInt32BE(28) - header.readUInt32BE(36));
}
