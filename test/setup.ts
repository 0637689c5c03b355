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
