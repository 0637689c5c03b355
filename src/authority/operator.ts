/** Operators: named persons and programs that run the installation, and what each role may. Contract §2. */
import type { OperatorRole } from "../wire/operator-role.ts";

/** An operator who has shown its credential. */
export type OperatorPrincipal = {
  kind: "operator";
  /** As the audit names it. */
  name: string;
  role: OperatorRole;
  /** Of a key its id, of a person behind Cloudflare Access the address; null for `OPERATOR_TOKEN`. */
  id: string | null;
  /** Whether `operator/revoke` can end it while a call of it runs: a key, and nothing else. */
  isRevocable: boolean;
};

/** Whoever holds `OPERATOR_TOKEN` or `OPERATOR_TOKEN_NEXT`. */
export const ROOT: OperatorPrincipal = { kind: "operator", name: "root", role: "owner", id: null, isRevocable: false };

/** @returns the operator as the audit and the rows of what it made name it: `operator`, or `operator:<id>` */
export function operatorSubject({ id }: OperatorPrincipal): string {
  return id === null ? "operator" : operatorAuthority(id);
}

/** The authority of an operator's key, as its fencing token in D1 carries it. */
export const operatorAuthority = (operatorId: string): string => `operator:${operatorId}`;
