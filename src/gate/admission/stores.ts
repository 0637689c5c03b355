/** What the admission of a credential reads and writes of its gate. */
import type { AuditOutbox } from "../../audit/outbox.ts";
import type { Lockout } from "../../auth/lockout.ts";
import type { AgentAuthority } from "../../authority/agent.ts";
import type { Devices } from "../../authority/devices.ts";
import type { SharedSecret } from "../../authority/shared-secret.ts";
import type { GroupCommit } from "../storage/group-commit.ts";
import type { AccessValidations } from "./access-validations.ts";
import type { Nonces } from "./nonces.ts";
import type { Rate } from "./rate-limit.ts";

export type CredentialStores = {
  commits: GroupCommit;
  authority: AgentAuthority;
  devices: Devices;
  shared: SharedSecret;
  audit: AuditOutbox;
  accessValidations: AccessValidations;
  nonces: Nonces;
  rate: Rate;
  lockout: Lockout;
};
