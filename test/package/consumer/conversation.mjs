// Under each Node: what the installed library says and does, with two agents that the installed command has registered.
import assert from "node:assert/strict";
import { generateKeys, InvalidArgumentError, SallyportError, signRequest } from "sallyport/client";
import { openAgent } from "sallyport/node";
import { newUlid, parseAgentDid, parseServerFrame } from "sallyport/wire";

const keys = await generateKeys();
assert.equal(typeof signRequest, "function");
assert.equal(keys.privateKey.extractable, true);
assert.notEqual(parseAgentDid(`did:cdi:registry.example:agent:${newUlid(Date.now())}`), null);
assert.equal(parseServerFrame("{").ok, false);

await assert.rejects(openAgent("nobody"), (error) => error instanceof SallyportError && error.code === "NO_AGENT");
await assert.rejects(openAgent(7), (error) => error instanceof InvalidArgumentError && error.argument === "name");

const [alice, bob] = [await openAgent("alice"), await openAgent("bob")];
await assert.rejects(alice.send({ to: 7, payload: 1 }), (error) => error.argument === "to");

const relay = bob.connect({ onMessage: async (message) => void (await message.reply({ got: message.payload })) });
await relay.opened();
const answer = await alice.request({ to: bob.agentDid, payload: { text: "hello" }, timeoutMs: 30_000 });
assert.deepEqual(answer.payload, { got: { text: "hello" } });

await alice.send({ to: bob.agentDid, payload: { text: "unheard" } });
bob.close();
alice.close();
console.log(`node ${process.version}: ok`);
// Nothing keeps the process: where it does not end by itself, whoever has started it waits in vain.
