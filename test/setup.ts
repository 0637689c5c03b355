/**
 * Runs before each test file inside the runtime. One workerd serves many files, one after the other: each begins with
 * modules evaluated anew, with an empty database that has every migration, and with no object of an earlier file.
 */
import { applyD1Migrations, reset } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { vi } from "vitest";

vi.resetModules();
await reset();
await applyD1Migrations(env.DB, env.TEST_MIGRATIONS);

// Housekeeping does its rounds when a test asks for one, and never amid another that takes its time.
const { Housekeeping } = await import("../src/housekeeping/housekeeping.ts");
const { housekeeping } = await import("./support/housekeeping.ts");
const { arm } = Housekeeping.prototype;
Housekeeping.prototype.arm = async function armIfAsked(this: InstanceType<typeof Housekeeping>): Promise<void> {
  if (housekeeping.isArmed) await arm.call(this);
};
