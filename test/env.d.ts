import type { D1Migration } from "@cloudflare/vitest-plugin";

declare global {
  namespace Cloudflare {
    interface Env {
      /** The D1 migrations, read at configuration time, since tests run inside workerd. */
      TEST_MIGRATIONS: D1Migration[];
    }
  }
}
