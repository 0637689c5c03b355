/** The chapters of the document, and which of them a method stands in. */

const CHAPTERS: Readonly<Record<string, string>> = {
  Messages: "Send messages to agents, and ask where they are.",
  Relay: "The socket by which an agent receives.",
  RPC: "Methods by JSON-RPC 2.0.",
  Trust: "Pairing, and who trusts whom.",
  Groups: "Agents that may send to one another without pairing.",
  Devices: "Relay clients that act for an agent.",
  Tasks: "Tasks of agents, and messages to them.",
  "API keys": "Keys of service accounts.",
  Relationships: "The graph that decides who may do what.",
  Identity: "Agents, their credentials, and invites.",
  Registry: "The public documents of the embedded registry.",
  Operators: "Who runs this installation.",
  Operation: "Whether it works, and how well.",
  A2A: "The A2A 1.0 face.",
};

/** By the first word of a method's name. */
const BY_FAMILY: Readonly<Record<string, string>> = {
  identity: "Identity",
  invite: "Identity",
  agent: "Identity",
  pair: "Trust",
  trust: "Trust",
  delivery: "Messages",
  "dead-letter": "Messages",
  "dead-letters": "Messages",
  inbox: "Messages",
  group: "Groups",
  relay: "Relay",
  device: "Devices",
  shared: "Devices",
  task: "Tasks",
  message: "Tasks",
  event: "Tasks",
  apikey: "API keys",
  authz: "Relationships",
  operator: "Operators",
  overview: "Operation",
  audit: "Operation",
};

/** @returns what a chapter is about */
export function tagDescription(tag: string): string {
  return CHAPTERS[tag] ?? tag;
}

/** @returns the chapter of a method */
export function tagOf(method: string): string {
  const family = /^[a-z-]+/.exec(method)?.[0] ?? "";
  return BY_FAMILY[family] ?? family;
}
