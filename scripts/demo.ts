/** `npm run demo`: the real program on this machine, step by step. Every step is a check; the exit status says whether all held. */
import {
  type AgentClient,
  createAgentClient,
  createInstallationClient,
  createOperatorClient,
  generateKeys,
  type IncomingMessage,
  type Keys,
  ProblemError,
  type RelayConnection,
  signRequest,
} from "../src/client/index.ts";
import { expect, tellStory } from "./demo-story.ts";
import { createThrowawayProxy } from "./throwaway-proxy.ts";

const TOO_LONG_MS = 180_000;
const DELIVERED_WITHIN_MS = 30_000;
const SHOWN_ON_FAILURE = 60;

type Agent = { readonly name: string; readonly keys: Keys; readonly client: AgentClient };
type Cast = { readonly alice: Agent; readonly bob: Agent; readonly carol: Agent };
/** A relay, and the messages of other agents as they come in by it. */
type Inbox = { readonly relay: RelayConnection; next(): Promise<IncomingMessage> };

const colours = process.stdout.isTTY && process.env["NO_COLOR"] === undefined;
const story = tellStory((line) => console.log(line), colours);
const { chapter, check } = story;
const proxy = await createThrowawayProxy();
const operator = createOperatorClient({ baseUrl: proxy.url, token: proxy.operatorToken });

setTimeout(() => fail(new Error(`not done after ${TOO_LONG_MS / 1_000} s`)), TOO_LONG_MS).unref();
try {
  console.log(
    "Sallyport, the real program, started on this machine with a state of its own that is thrown away at the end.",
  );
  await run();
  console.log(`\ndemo: ok (${story.kept()} checks)`);
  process.exit(0);
} catch (error) {
  fail(error);
}

async function run(): Promise<void> {
  await proxy.start();
  const cast = await registration();
  await strangers(cast);
  await pairing(cast);
  (await firstMessage(cast)).relay.close();
  const bobsInbox = await powerCut(cast);
  await forgeries(cast, bobsInbox);
  await revocation(cast);
  bobsInbox.relay.close();
}

async function registration(): Promise<Cast> {
  chapter(
    "Registration",
    "An agent makes its own key pair. The operator registers the public half and gets the agent's identity token.",
  );
  const alice = await register("Alice");
  const bob = await register("Bob");
  const carol = await register("Carol");
  await check("without the operator's token no agent is registered", async () => {
    const stranger = createOperatorClient({ baseUrl: proxy.url, token: "a-guess-that-is-long-enough-to-be-a-token" });
    const { publicKey } = await generateKeys();
    return refusal(
      stranger.registerAgent({ name: "Mallory", framework: "demo", publicKey }),
      401,
      "PROXY_AUTH_INVALID_TOKEN",
    );
  });
  return { alice, bob, carol };
}

async function strangers({ alice, bob }: Cast): Promise<void> {
  chapter("Strangers are refused", "Alice knows Bob's name. That is not enough.");
  await check("Alice's message to Bob is refused before they are paired", () =>
    refusal(
      alice.client.send({ to: bob.client.agentDid, payload: { text: "let me in" } }),
      403,
      "PROXY_AUTH_FORBIDDEN",
    ),
  );
}

async function pairing({ alice, bob, carol }: Cast): Promise<void> {
  chapter("Pairing", "Alice makes a ticket that works once and hands it to Bob by a way they trust; Bob confirms it.");
  const { ticket } = await alice.client.pairing.start({ profile: { agentName: "Alice", humanName: "Anna" } });
  await check("Bob confirms Alice's ticket", async () => {
    const confirmed = await bob.client.pairing.confirm({ ticket, profile: { agentName: "Bob", humanName: "Ben" } });
    expect(confirmed.paired && confirmed.notified, confirmed);
  });
  await check("the ticket is used up", () =>
    refusal(
      carol.client.pairing.confirm({ ticket, profile: { agentName: "Carol", humanName: "Clara" } }),
      409,
      "PROXY_CONFLICT",
    ),
  );
  await check("each lists the other as its peer", async () => {
    const peers = [await alice.client.pairing.peers(), await bob.client.pairing.peers()]
      .flat()
      .map(({ agentDid }) => agentDid);
    expect(peers.join() === [bob, alice].map(({ client }) => client.agentDid).join(), peers);
  });
}

async function firstMessage({ alice, bob }: Cast): Promise<Inbox> {
  chapter("A message", "Bob opens his relay, a WebSocket that he keeps open. Alice signs a message and hands it in.");
  const bobsInbox = openRelay(bob);
  await check("Bob's relay is open", () => bobsInbox.relay.opened());
  await check("Alice's message is delivered and acknowledged", async () => {
    const sent = await alice.client.send({ to: bob.client.agentDid, payload: { text: "hello Bob" }, waitSeconds: 10 });
    expect(sent.state === "delivered", sent);
    const { state, attempts } = await alice.client.deliveryStatus(sent.deliveryId);
    expect(state === "delivered", state);
    return `${state} at attempt ${attempts}`;
  });
  await check("Bob has it, and knows that it is from Alice", async () => {
    const message = await bobsInbox.next();
    expect(message.fromAgentDid === alice.client.agentDid, message);
    return message.payloadText;
  });
  return bobsInbox;
}

async function powerCut({ alice, bob }: Cast): Promise<Inbox> {
  chapter("A power cut", "Bob goes offline. Alice writes to him; a 202 means that the message is on disk.");
  const recorded = await signedMessage(alice, bob.client.agentDid, { text: "while you were out" });
  let deliveryId = "";
  await check("the message waits for Bob", async () => {
    const answer = await fetch(recorded.clone());
    const body = (await answer.json()) as { state?: string; deliveryId?: string };
    expect(answer.status === 202 && body.state === "queued" && body.deliveryId !== undefined, body);
    deliveryId = body.deliveryId;
    return `${answer.status} ${body.state}`;
  });
  await check("a recorded request is sent again, byte for byte: refused", () =>
    refused(recorded.clone(), 401, "PROXY_AUTH_REPLAY"),
  );
  await check("all processes are killed with SIGKILL; nothing answers any more", async () => {
    await proxy.kill();
    await createInstallationClient({ baseUrl: proxy.url })
      .health()
      .then(
        () => expect(false, "an answer"),
        (error: unknown) => expect(error instanceof Error && error.name === "UnreachableError", String(error)),
      );
  });
  await check("it starts again on the same disk", () => proxy.start());
  await check("the replay is still refused", () => refused(recorded.clone(), 401, "PROXY_AUTH_REPLAY"));
  const bobsNextInbox = openRelay(bob);
  await check("Bob comes back and gets the message", async () => {
    const message = await bobsNextInbox.next();
    expect(message.deliveryId === deliveryId, message);
    return message.payloadText;
  });
  await check("Alice can see that it has arrived", () =>
    until(async () => (await alice.client.deliveryStatus(deliveryId)).state === "delivered"),
  );
  return bobsNextInbox;
}

async function forgeries({ alice, bob, carol }: Cast, bobsInbox: Inbox): Promise<void> {
  chapter("Forgeries", "Whatever is changed after signing, or does not fit, is refused; Bob sees none of it.");
  await check("a body that was changed after signing", async () => {
    const signed = await signedMessage(alice, bob.client.agentDid, { pay: 1 });
    return refused(
      new Request(signed, { method: "POST", body: JSON.stringify({ pay: 1_000 }) }),
      401,
      "PROXY_AUTH_INVALID_PROOF",
    );
  });
  await check("a signature by a key that is not Alice's", async () => {
    // It names Alice's key, as a forger would.
    const forged = { ...(await generateKeys()), publicKey: alice.keys.publicKey };
    const signed = await signedMessage({ ...alice, keys: forged }, bob.client.agentDid, {});
    return refused(signed, 401, "PROXY_AUTH_INVALID_PROOF");
  });
  await check("another recipient than the one that was signed", async () => {
    const signed = await signedMessage(alice, bob.client.agentDid, {});
    signed.headers.set("X-Claw-Recipient-Agent-Did", carol.client.agentDid);
    return refused(signed, 401, "PROXY_AUTH_INVALID_PROOF");
  });
  await check("a recipient that Alice is not paired with", async () =>
    refused(await signedMessage(alice, carol.client.agentDid, {}), 403, "PROXY_AUTH_FORBIDDEN"),
  );
  await check("a recipient that is no agent's name", async () =>
    refused(await signedMessage(alice, "bob", {}), 400, "PROXY_HOOK_RECIPIENT_INVALID"),
  );
  await check("a timestamp ten minutes old", async () =>
    refused(await signedMessage(alice, bob.client.agentDid, {}, tenMinutesSlow()), 401, "PROXY_AUTH_TIMESTAMP_SKEW"),
  );
  await check("but a client whose clock is ten minutes slow asks for the time and gets through", async () => {
    const slow = createAgentClient({
      baseUrl: proxy.url,
      keys: alice.keys,
      credential: alice.client.credential(),
      now: tenMinutesSlow,
      onClockCorrection: () => undefined,
    });
    const { deliveryId: accepted } = await slow.send({
      to: bob.client.agentDid,
      payload: { text: "my clock was slow" },
    });
    const message = await bobsInbox.next();
    // The next message after the power cut's: none of the forgeries has come in between.
    expect(message.deliveryId === accepted, message);
    return message.payloadText;
  });
}

async function revocation({ bob, carol }: Cast): Promise<void> {
  chapter("Revocation", "Carol is paired with Bob and has her relay open. Then the operator revokes her.");
  const invitation = await carol.client.pairing.start({ profile: { agentName: "Carol", humanName: "Clara" } });
  await bob.client.pairing.confirm({ ticket: invitation.ticket, profile: { agentName: "Bob", humanName: "Ben" } });
  const carolsInbox = openRelay(carol);
  await check("Carol is in: her message reaches Bob", async () => {
    await carolsInbox.relay.opened();
    const sent = await carol.client.send({
      to: bob.client.agentDid,
      payload: { text: "hello from Carol" },
      waitSeconds: 10,
    });
    expect(sent.state === "delivered", sent);
  });
  await check("the operator revokes her", () => operator.revokeAgent(carol.client.agentDid, "shown in the demo"));
  await check("from that moment she is refused", () =>
    refusal(
      carol.client.send({ to: bob.client.agentDid, payload: { text: "still here?" } }),
      401,
      "PROXY_AUTH_REVOKED",
    ),
  );
  await check("her socket is closed with 4001", async () => {
    const { closeCode, detail } = await within(carolsInbox.relay.ended, "her socket stayed open");
    expect(closeCode === 4001, closeCode);
    return detail;
  });
}

/** A clock, in milliseconds. */
function tenMinutesSlow(): number {
  return Date.now() - 600_000;
}

/** A new agent with a key pair of its own. */
async function register(name: string): Promise<Agent> {
  const keys = await generateKeys();
  const credential = await operator.registerAgent({ name, framework: "demo", publicKey: keys.publicKey });
  await check(`${name} is registered`, () => Promise.resolve(credential.agentDid));
  return { name, keys, client: createAgentClient({ baseUrl: proxy.url, keys, credential }) };
}

/** The agent's relay, and the messages of other agents as they come in by it; each is acknowledged. */
function openRelay({ client }: Agent): Inbox {
  const arrived: IncomingMessage[] = [];
  let wake: (() => void) | null = null;
  const relay = client.connect({
    onMessage(message) {
      // The proxy's own messages are about pairings.
      if (message.fromAgentDid !== null) arrived.push(message);
      wake?.();
    },
  });
  const next = async (): Promise<IncomingMessage> => {
    for (;;) {
      const message = arrived.shift();
      if (message !== undefined) return message;
      await within(new Promise<void>((resolve) => (wake = resolve)), "no message came");
    }
  };
  return { relay, next };
}

/** The request of a send, signed and ready to be sent as it is, or to be tampered with. */
function signedMessage(sender: Agent, to: string, payload: unknown, signedAtMs = Date.now()): Promise<Request> {
  const { ait, access } = sender.client.credential();
  const request = new Request(`${proxy.url}/hooks/agent`, {
    method: "POST",
    headers: {
      Authorization: `Claw ${ait}`,
      "X-Claw-Agent-Access": access.token,
      "X-Claw-Recipient-Agent-Did": to,
      "Content-Type": "application/json",
    },
    body: JSON.stringify(payload),
  });
  return signRequest(request, sender.keys, signedAtMs);
}

/** Sends a request as it is; it must be refused in just this way. */
async function refused(request: Request, status: number, code: string): Promise<string> {
  const answer = await fetch(request);
  const body = (await answer.json()) as { code?: string };
  expect(answer.status === status && body.code === code, { status: answer.status, ...body });
  return `${status} ${code}`;
}

/** The call must be refused in just this way. */
async function refusal(call: Promise<unknown>, status: number, code: string): Promise<string> {
  const outcome: unknown = await call.then(
    (value: unknown) => value,
    (error: unknown) => error,
  );
  if (!(outcome instanceof ProblemError)) throw outcome instanceof Error ? outcome : new Error("it was accepted");
  expect(outcome.status === status && outcome.code === code, { status: outcome.status, code: outcome.code });
  return `${status} ${code}`;
}

/** Asks again and again until it is so. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + DELIVERED_WITHIN_MS;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error("it did not become so");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function within<T>(promise: Promise<T>, otherwise: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(otherwise)), DELIVERED_WITHIN_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function fail(error: unknown): never {
  console.error("\nThe last that the program itself printed:");
  console.error(proxy.output().split("\n").slice(-SHOWN_ON_FAILURE).join("\n"));
  console.error(error instanceof Error ? error.message : String(error));
  console.log(`\ndemo: failed after ${story.kept()} checks`);
  process.exit(1);
}
