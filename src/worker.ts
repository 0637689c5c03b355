import { DurableObject } from "cloudflare:workers";
export class Gate extends DurableObject<Env> {}
export class Housekeeping extends DurableObject<Env> {}
export default { fetch: () => new Response("ok") };
