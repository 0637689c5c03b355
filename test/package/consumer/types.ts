/** What a program in TypeScript writes; judged with `skipLibCheck: false`. */
import { type AgentClient, createAgentClient, type IncomingMessage, importKeys, Refuse } from "sallyport/client";
import { openAgent } from "sallyport/node";
import { type AgentDid, parseAgentDid, proofText } from "sallyport/wire";

export async function talk(name: string): Promise<string> {
  const agent: AgentClient = await openAgent(name, { home: "/tmp/home" });
  const did: AgentDid | null = parseAgentDid(agent.agentDid);
  if (did === null) throw new Refuse("no agent");
  const show = (message: IncomingMessage): void => console.log(message.deliveryId, message.payload);
  const relay = agent.connect({ onMessage: show });
  await agent.send({ to: did, payload: { text: "hello" } });
  for await (const message of agent.messages()) await message.reply({ text: "thanks" });
  relay.close();
  return proofText({ method: "GET", pathWithQuery: "/", timestamp: "1", nonce: "n", bodySha256: "h" });
}

export async function byHand(jwk: Parameters<typeof importKeys>[0]): Promise<AgentClient> {
  const credential = { agentDid: "did:x", ait: "a.b.c", access: { token: "t", expiresAtMs: 0 }, refreshToken: "r" };
  return createAgentClient({ baseUrl: "https://gate.example.com", keys: await importKeys(jwk), credential });
}
