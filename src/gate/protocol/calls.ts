/** Calls, as they cross from the Worker to a gate. */
import type { Credential } from "../../auth/credential.ts";
import type { ProofForm } from "../../auth/proof.ts";
import type { OperatorPrincipal } from "../../authority/operator.ts";
import type { ApiKeyGrant } from "../../authority/reference.ts";
import type { Scope } from "../../authority/scopes.ts";
import type { WrittenReply } from "../../call/reply.ts";
import type { AgentDid } from "../../wire/did.ts";
import { GateRefusal } from "./refusal.ts";
import type { AgentAdmission } from "./submission.ts";

export type GateCredential = Extract<Credential, { agentDid: AgentDid }>;

export type ClaimProof = ProofForm;

/** Who calls, as the Worker verified it. */
export type GateCaller =
  | { kind: "agent"; admission: AgentAdmission }
  /** `address` is whom failures are counted against. */
  | { kind: "credential"; credential: GateCredential; address: string | null }
  | { kind: "apiKey"; key: ApiKeyGrant }
  /** Absent in what an older version asks: the holder of `OPERATOR_TOKEN`, the only operator that it knows. */
  | { kind: "operator"; principal?: OperatorPrincipal };

/** A device asks for the token that waits for it. */
export type Claim = { deviceId: string; proof: ClaimProof; address: string | null; requestId: string };

export type ClaimAnswer =
  | { ok: true; token: string; scopes: readonly Scope[]; epoch: number; expiresAtMs: number }
  | { ok: false; refusal: GateRefusal["refusal"] };

export type GateCall = {
  caller: GateCaller;
  surface: "rpc" | "http";
  requestId: string;
  origin: string | null;
  /** How fresh a list must be. */
  bookmark?: string | null;
  /** In their order; what follows the end of its own authority is refused. */
  calls: AskedCall[];
  /** The one call is made again as messages come, for so long, while its answer is that there are none. */
  waitMs?: number;
  /** A JSON-RPC body in the place of calls: parsed here, once its caller has been admitted and counted. */
  rpcBody?: string;
};

/** One call. `paramsText` is the parameters' own JSON text, in the place of a value. */
export type AskedCall = { method: string; params?: unknown; paramsText?: string };

export type GateAnswer =
  | {
      ok: true;
      replies: WrittenReply[];
      /** The text of the response to `rpcBody`, null where it has none. */
      rpcText: string | null;
      bookmark: string | null;
    }
  | { ok: false; refusal: GateRefusal["refusal"] };
