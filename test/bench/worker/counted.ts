/**
 * The proxy with its round trips to D1 counted, and how often a gate was made, which is how it is known that one had been
 * asleep. One route more: `/bench/counts`. Built for the bench alone.
 */
import proxy, { Gate as PlainGate, Housekeeping as PlainHousekeeping } from "../../../src/worker.ts";

type Counts = { roundTrips: number; gatesMade: number };

let counts: Counts = nothing();
const environments = new WeakMap<Env, Env>();
const plainStatements = new WeakMap<D1PreparedStatement, D1PreparedStatement>();

function nothing(): Counts {
  return { roundTrips: 0, gatesMade: 0 };
}

/** The bindings with the database counted. The same object for the same environment: the proxy keys its runtime by it. */
function counted(env: Env): Env {
  const known = environments.get(env);
  if (known !== undefined) return known;
  const wrapped = { ...env, DB: countedDatabase(env.DB) };
  environments.set(env, wrapped);
  environments.set(wrapped, wrapped);
  return wrapped;
}

function countedDatabase<Database extends D1Database | D1DatabaseSession>(database: Database): Database {
  return new Proxy(database, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        if (name === "withSession") return countedDatabase(Reflect.apply(member, target, args) as D1DatabaseSession);
        if (name === "prepare") return countedStatement(Reflect.apply(member, target, args) as D1PreparedStatement);
        if (name === "batch" || name === "exec") counts.roundTrips += 1;
        if (name !== "batch") return Reflect.apply(member, target, args);
        const statements = (args[0] as D1PreparedStatement[]).map((one) => plainStatements.get(one) ?? one);
        return Reflect.apply(member, target, [statements]);
      };
    },
  });
}

const TRIPS = new Set<string | symbol>(["first", "run", "all", "raw"]);

function countedStatement(statement: D1PreparedStatement): D1PreparedStatement {
  const wrapped = new Proxy(statement, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        if (TRIPS.has(name)) counts.roundTrips += 1;
        const answer: unknown = Reflect.apply(member, target, args);
        return name === "bind" ? countedStatement(answer as D1PreparedStatement) : answer;
      };
    },
  });
  plainStatements.set(wrapped, statement);
  return wrapped;
}

export class Gate extends PlainGate {
  constructor(ctx: DurableObjectState, env: Env) {
    counts.gatesMade += 1;
    super(ctx, counted(env));
  }
}

/** Its work is nobody's request, and is not counted. */
export class Housekeeping extends PlainHousekeeping {}

export default {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Response | Promise<Response> {
    if (new URL(request.url).pathname !== "/bench/counts")
      return proxy.fetch(request as Parameters<typeof proxy.fetch>[0], counted(env), ctx);
    const answer = Response.json(counts);
    counts = nothing();
    return answer;
  },
};
