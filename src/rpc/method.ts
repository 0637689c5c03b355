/**
 * What a method is. Everything authenticated but the hook and the socket upgrade is a method: declared once, with the schema
 * of its parameters and of its result, the permission it needs, and its handler. A method without a permission does not compile.
 */
import type * as z from "zod/mini";
import type { OperatorRole } from "../wire/operator-role.ts";
import type { PrincipalKind } from "../authority/principal.ts";
import type { Scope } from "../authority/scopes.ts";
import type { CallContext } from "../call/context.ts";
import type { ProblemCode } from "../wire/problem.ts";

export type Permission = {
  /** Which kinds of principal may call. */
  callers: readonly PrincipalKind[];
  /** Which roles an operator needs one of; empty where none may call. */
  roles: readonly OperatorRole[];
  /** The scope needed, or null where any holder of a valid credential of that kind may. */
  scope: Scope | null;
};

export type Method<P = unknown, R = unknown> = {
  name: string;
  /** `rpc`: reachable by name over `/rpc` and the socket; `http`: only behind its own route. */
  surface: "rpc" | "http";
  /** Runs in an agent's gate alone: an operator names the agent by `agentDid`. */
  inGate?: true;
  permission: Permission;
  params: z.ZodMiniType<P>;
  /** Members that are passed on and keep their own text: the schema sees them as `JsonText`, see `keptJson`. */
  keeps?: readonly string[];
  /** The code for parameters that do not fit; `PROXY_BAD_REQUEST` unless said otherwise. */
  invalidParams?: ProblemCode;
  result: z.ZodMiniType<R>;
  handler(ctx: CallContext, params: P): Promise<R>;
};

/** Declares a method. Types of parameters and result follow from the schemas. */
export function defineMethod<P, R>(method: Method<P, R>): Method {
  return method;
}
