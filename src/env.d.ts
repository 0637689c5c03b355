/** Secrets and settings that `wrangler types` cannot see: they come from `wrangler secret` or `--var`. */
declare namespace Cloudflare {
  interface Env {
    OPERATOR_TOKEN?: string;
    OPERATOR_TOKEN_NEXT?: string;
    ACCESS_TEAM_DOMAIN?: string;
    ACCESS_AUD?: string;
    ACCESS_ROLES?: string;
    REGISTRY_SIGNING_SECRET?: string;
  }
}

/** The bindings that an installation may leave out. */
interface Env {
  /** One wide point a request, where a dataset is bound. */
  ANALYTICS?: AnalyticsEngineDataset;
}
