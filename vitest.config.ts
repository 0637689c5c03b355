import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

/** For what comes by itself, on a machine that may be busy; a test that passes does not wait for it. */
const POLL_WITHIN_MS = 60_000;

/** Two projects: `workerd` runs inside the real runtime, `node` drives the real program from outside. */
export default defineConfig(async () => {
  const migrations = await readD1Migrations("migrations");
  return {
    test: {
      // Most of a test's time is waiting, for processes to start and for clocks: more at once than there are processors.
      maxWorkers: 3,
      // What a test prints is shown where it fails, and nowhere else.
      silent: "passed-only" as const,
      slowTestThreshold: 60_000,
      projects: [
        {
          plugins: [
            cloudflareTest({
              wrangler: { configPath: "./wrangler.toml" },
              miniflare: {
                bindings: {
                  TEST_MIGRATIONS: migrations,
                  OPERATOR_TOKEN: "test-operator-token-0123456789abcdef0123456789",
                  REGISTRY_SIGNING_SECRET: "test-registry-signing-secret-0123456789abcdef",
                  RATE_LIMIT_PER_IP: "off",
                  // How many random histories the test of revocation tries; its own number where nothing is said.
                  HISTORIES: process.env["HISTORIES"] ?? "",
                },
              },
            }),
          ],
          test: {
            name: "workerd",
            // A workerd and its modules for every file cost more than all the tests; `setup.ts` gives each file its own state.
            isolate: false,
            include: ["test/**/*.test.ts"],
            exclude: [
              "test/e2e/**",
              "test/cli/**",
              "test/connect/**",
              "test/scripts/**",
              "test/conformance/**",
              "test/bench/**",
              "test/faults/**",
              "test/fuzz/**",
              "test/soak/**",
              "test/scale/**",
            ],
            setupFiles: ["./test/setup.ts"],
            testTimeout: 120_000,
            hookTimeout: 120_000,
            expect: { poll: { timeout: POLL_WITHIN_MS } },
            retry: process.env["CI"] === undefined ? 0 : 1,
          },
        },
        {
          test: {
            name: "node",
            include: ["test/{e2e,cli,connect,scripts,conformance,bench,faults,fuzz,soak,scale}/**/*.test.ts"],
            globalSetup: ["./test/support/program/build-once.ts"],
            // Real processes on a machine that may be busy: patience, and on CI one more try.
            testTimeout: 180_000,
            hookTimeout: 180_000,
            expect: { poll: { timeout: POLL_WITHIN_MS } },
            retry: process.env["CI"] === undefined ? 0 : 1,
          },
        },
      ],
    },
  };
});
