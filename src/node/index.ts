/**
 * `sallyport/node`: all of `sallyport/client`, and what only Node has: the agents of this machine, proxies of the environment,
 * and a WebSocket where Node brings none along. Node ≥ 20.
 *
 * @module
 */
export * from "../client/index.ts";
export { AgentFileError, openAgent, type OpenAgentOptions } from "./agent.ts";
