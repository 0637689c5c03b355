import type { D1Migration } from "@cloudflare/vitest-plugin";

declare global {
  namespace Cloudflare {
    interface Env {
      /** The D1 migrations, read at configuration time, since tests run inside workerd. */
      TEST_MIGRATIONS: D1Migration[];
      /** How many random histories to try, as text; empty for the test's own number. */
      HISTORIES: string;
    }
  }
}
