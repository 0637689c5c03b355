/** What the chain hands on: a request that passed every stage before the gate. */
import type { OperatorPrincipal } from "../authority/operator.ts";
import type { AgentPrincipal } from "../authority/principal.ts";
import type { AgentDid } from "../wire/did.ts";
import type { GroupId } from "../wire/group-id.ts";
import type { AccessVerdict } from "./access.ts";
import type { Credential } from "./credential.ts";
import type { Decision } from "./decision.ts";
import type { BodyShare } from "./limits/body-budget.ts";

/** To whom a send may go, and by which epoch, of the pair or of the group, it was judged. */
export type SendTrust =
  | { readonly kind: "pair"; readonly recipientDid: AgentDid; readonly epoch: number }
  | { readonly kind: "member"; readonly groupId: GroupId; readonly recipientDid: AgentDid; readonly epoch: number }
  | {
      readonly kind: "group";
      readonly groupId: GroupId;
      readonly recipientDids: readonly AgentDid[];
      readonly epoch: number;
    };

/** A request that passed; what is left to decide is the gate's. */
export type Passed =
  | {
      readonly kind: "agent";
      readonly principal: AgentPrincipal;
      /** The nonce that the gate takes, unique per key. */
      readonly proof: {
        readonly keyX: string;
        readonly nonce: string;
        readonly timestampMs: number;
        readonly skewMs: number;
      };
      /** To whom a send may go, and the epoch that it was judged by; null where the route is none. */
      readonly trust: SendTrust | null;
      /** Null where the route needs no access token. */
      readonly access: AccessVerdict | null;
      readonly body: Uint8Array;
      readonly bodySha256: string;
      readonly decision: Decision;
    }
  | {
      readonly kind: "credential";
      readonly credential: Credential;
      readonly body: Uint8Array;
      /** The body's share of the budget, held until the gate has said who this is. */
      readonly bodyShare: BodyShare;
      readonly decision: Decision;
    }
  | {
      readonly kind: "operator";
      readonly principal: OperatorPrincipal;
      readonly body: Uint8Array;
      readonly decision: Decision;
    };

export type PassedAgent = Extract<Passed, { kind: "agent" }>;
export type PassedOperator = Extract<Passed, { kind: "operator" }>;
