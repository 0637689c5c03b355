/**
 * Who may call which method, all of it on one page (contract §5). A method takes its permission from here, so one without a
 * line here does not compile. Which device, key or task a caller may touch is decided by the method itself.
 */
import type { OperatorRole } from "../wire/operator-role.ts";
import type { Permission } from "./method.ts";

const OWNERS = ["owner"] as const;
const ADMINS = ["owner", "admin"] as const;
const REGISTRARS = ["owner", "admin", "registrar"] as const;
const VIEWERS = ["owner", "admin", "viewer"] as const;
const NO_OPERATOR = [] as const;

/** Who may read the numbers. */
export const METRICS_ROLES: readonly OperatorRole[] = [...VIEWERS, "metrics"];

const OPERATOR: Permission = { callers: ["operator"], roles: ADMINS, scope: null };
const OWNER: Permission = { ...OPERATOR, roles: OWNERS };
const REGISTRAR: Permission = { ...OPERATOR, roles: REGISTRARS };
/** Reads of agents and invites, which a registrar also needs. */
const LISTER: Permission = { ...OPERATOR, roles: [...REGISTRARS, "viewer"] };
/** Reads of the whole installation. */
const VIEWER: Permission = { ...OPERATOR, roles: VIEWERS };
const AGENT: Permission = { callers: ["agent"], roles: NO_OPERATOR, scope: null };
const SENDER: Permission = { callers: ["agent", "device", "shared"], roles: NO_OPERATOR, scope: "send" };
const RECEIVER: Permission = { callers: ["agent", "device", "shared"], roles: NO_OPERATOR, scope: "relay" };
const RELAY_CLIENT: Permission = { callers: ["agent", "device", "shared"], roles: NO_OPERATOR, scope: null };
const RECIPIENT: Permission = { callers: ["agent", "operator"], roles: ADMINS, scope: null };
/** Without the scope `devices` a device acts on itself alone. */
const DEVICE_MANAGER: Permission = { callers: ["agent", "device", "apiKey", "operator"], roles: ADMINS, scope: null };
const ADMIN: Permission = { callers: ["agent", "device", "apiKey", "operator"], roles: ADMINS, scope: "admin" };
/** Groups are the agent's own: no key and no operator acts for it there. */
const MEMBER: Permission = { callers: ["agent", "device"], roles: NO_OPERATOR, scope: "admin" };
const TASK_READER: Permission = {
  callers: ["agent", "device", "apiKey", "operator"],
  roles: VIEWERS,
  scope: "tasks:read",
};
const TASK_WRITER: Permission = {
  callers: ["agent", "device", "apiKey", "operator"],
  roles: ADMINS,
  scope: "tasks:write",
};

/** Only the task's own agent, its devices and its keys. */
const TASK_AGENT: Permission = { ...TASK_WRITER, callers: ["agent", "device", "apiKey"], roles: NO_OPERATOR };

export const PERMISSIONS = {
  "identity.register": REGISTRAR,
  "identity.list": LISTER,
  "identity.revoke": OPERATOR,
  "identity.rekey": OPERATOR,
  "identity.reissue": AGENT,
  "identity.refresh": AGENT,
  "identity.enroll": { callers: ["invite"], roles: NO_OPERATOR, scope: null },
  "invite.create": REGISTRAR,
  "invite.list": LISTER,
  "invite.revoke": REGISTRAR,
  "identity.keys.rotate": OPERATOR,
  "identity.keys.revoke": OPERATOR,

  "agent.profile": { callers: ["agent", "operator"], roles: VIEWERS, scope: null },

  "pair.start": AGENT,
  "pair.confirm": AGENT,
  "pair.status": AGENT,
  "pair.remove": AGENT,
  "pair.peers": AGENT,
  "trust/list": VIEWER,
  "trust/remove": OPERATOR,

  "group/create": MEMBER,
  "group/invite": MEMBER,
  "group/join": MEMBER,
  "group/list": MEMBER,
  "group/get": MEMBER,
  "group/remove": MEMBER,
  "group/leave": MEMBER,
  "group/rename": MEMBER,
  "group/delete": MEMBER,

  "delivery.get": SENDER,
  "inbox.fetch": RECEIVER,
  "inbox.ack": RECEIVER,
  "receipt.report": RECEIVER,
  "receipt.get": SENDER,
  "dead-letter.list": { ...RECIPIENT, roles: VIEWERS },
  "dead-letter.replay": RECIPIENT,
  "dead-letter.purge": RECIPIENT,
  "relay.ticket": RELAY_CLIENT,

  "device.pair.request": { callers: ["agent"], roles: NO_OPERATOR, scope: "devices" },
  "device.pair.list": { ...DEVICE_MANAGER, roles: VIEWERS },
  "device.pair.approve": DEVICE_MANAGER,
  "device.pair.reject": DEVICE_MANAGER,
  "device.pair.remove": DEVICE_MANAGER,
  "device.pair.rename": DEVICE_MANAGER,
  "device.scopes.request": { callers: ["device"], roles: NO_OPERATOR, scope: null },
  "device.scopes.approve": DEVICE_MANAGER,
  "device.token.rotate": DEVICE_MANAGER,
  "device.token.revoke": DEVICE_MANAGER,
  "shared.auth.rotate": ADMIN,

  "task/create": TASK_WRITER,
  "task/get": TASK_READER,
  "task/list": TASK_READER,
  "task/cancel": TASK_WRITER,
  "task/interrupt": TASK_WRITER,
  "task/update": TASK_AGENT,
  "task/delete": TASK_WRITER,
  "task/share": TASK_WRITER,
  "task/unshare": TASK_WRITER,
  "message/send": TASK_WRITER,
  "event/send": TASK_WRITER,

  "apikey/create": ADMIN,
  "apikey/list": { ...ADMIN, roles: VIEWERS },
  "apikey/delete": ADMIN,

  "authz/write": OPERATOR,
  "authz/read": VIEWER,
  "authz/check": VIEWER,
  "authz/explain": VIEWER,
  "authz/list_objects": VIEWER,
  "authz/reconcile": OPERATOR,
  "authz/enforce": OPERATOR,

  "operator/create": OWNER,
  "operator/list": VIEWER,
  "operator/revoke": OWNER,

  "audit/list": VIEWER,
} as const satisfies Record<string, Permission>;

export type MethodName = keyof typeof PERMISSIONS;

/** Methods that end an authority or a trust: what is left of a rate never keeps a caller from them (contract §6). */
const ENDING_METHODS: readonly MethodName[] = [
  "pair.remove",
  "group/remove",
  "group/leave",
  "group/delete",
  "device.pair.remove",
  "device.token.rotate",
  "device.token.revoke",
  "shared.auth.rotate",
  "apikey/delete",
];

/** @returns whether a call by this name ends an authority or a trust */
export function endsAuthority(method: string): boolean {
  return (ENDING_METHODS as readonly string[]).includes(method);
}
