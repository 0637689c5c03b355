/**
 * Who may call which method, all of it on one page (contract §5). A method takes its permission from here, so one without a
 * line here does not compile. Which device, key or task a caller may touch is decided by the method itself.
 */
import type { Permission } from "./method.ts";

const OPERATOR: Permission = { callers: ["operator"], scope: null };
const AGENT: Permission = { callers: ["agent"], scope: null };
const SENDER: Permission = { callers: ["agent", "device", "shared"], scope: "send" };
const RECEIVER: Permission = { callers: ["agent", "device", "shared"], scope: "relay" };
const RELAY_CLIENT: Permission = { callers: ["agent", "device", "shared"], scope: null };
const RECIPIENT: Permission = { callers: ["agent", "operator"], scope: null };
/** Without the scope `devices` a device acts on itself alone. */
const DEVICE_MANAGER: Permission = { callers: ["agent", "device", "apiKey", "operator"], scope: null };
const ADMIN: Permission = { callers: ["agent", "device", "apiKey", "operator"], scope: "admin" };
/** Groups are the agent's own: no key and no operator acts for it there. */
const MEMBER: Permission = { callers: ["agent", "device"], scope: "admin" };
const TASK_READER: Permission = { callers: ["agent", "device", "apiKey", "operator"], scope: "tasks:read" };
const TASK_WRITER: Permission = { callers: ["agent", "device", "apiKey", "operator"], scope: "tasks:write" };

export const PERMISSIONS = {
  "identity.register": OPERATOR,
  "identity.list": OPERATOR,
  "identity.revoke": OPERATOR,
  "identity.rekey": OPERATOR,
  "identity.reissue": AGENT,
  "identity.refresh": AGENT,
  "identity.enroll": { callers: ["invite"], scope: null },
  "invite.create": OPERATOR,
  "invite.list": OPERATOR,
  "invite.revoke": OPERATOR,
  "identity.keys.rotate": OPERATOR,
  "identity.keys.revoke": OPERATOR,

  "pair.start": AGENT,
  "pair.confirm": AGENT,
  "pair.status": AGENT,
  "pair.remove": AGENT,
  "pair.peers": AGENT,
  "trust/list": OPERATOR,
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
  "dead-letter.list": RECIPIENT,
  "dead-letter.replay": RECIPIENT,
  "dead-letter.purge": RECIPIENT,
  "relay.ticket": RELAY_CLIENT,

  "device.pair.request": { callers: ["agent"], scope: "devices" },
  "device.pair.list": DEVICE_MANAGER,
  "device.pair.approve": DEVICE_MANAGER,
  "device.pair.reject": DEVICE_MANAGER,
  "device.pair.remove": DEVICE_MANAGER,
  "device.pair.rename": DEVICE_MANAGER,
  "device.scopes.request": { callers: ["device"], scope: null },
  "device.scopes.approve": DEVICE_MANAGER,
  "device.token.rotate": DEVICE_MANAGER,
  "device.token.revoke": DEVICE_MANAGER,
  "shared.auth.rotate": ADMIN,

  "task/create": TASK_WRITER,
  "task/get": TASK_READER,
  "task/list": TASK_READER,
  "task/cancel": TASK_WRITER,
  "task/delete": TASK_WRITER,
  "task/share": TASK_WRITER,
  "task/unshare": TASK_WRITER,
  "message/send": TASK_WRITER,
  "event/send": TASK_WRITER,

  "apikey/create": ADMIN,
  "apikey/list": ADMIN,
  "apikey/delete": ADMIN,

  "authz/write": OPERATOR,
  "authz/read": OPERATOR,
  "authz/check": OPERATOR,
  "authz/explain": OPERATOR,
  "authz/list_objects": OPERATOR,
  "authz/reconcile": OPERATOR,
  "authz/enforce": OPERATOR,

  "audit/list": OPERATOR,
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
