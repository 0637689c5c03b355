/** The examples that each command's help ends with. */
import type { Command } from "commander";

const BOB = "did:cdi:agents.example.com:agent:01J9ZK3V5T8W2X4Y6Z0ABCDEFG";
const ID = "01J9ZK3V5T8W2X4Y6Z0ABCDEFG";

/** Lines by a command's words; `sallyport` is put before each. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  init: [
    "init --url https://gate.example.com --human-name Ada",
    "init --url http://127.0.0.1:8787 --operator-token-file .dev.vars",
  ],
  agent: ["agent register alice", "agent list"],
  "agent register": [
    "agent register alice",
    'agent register alice --framework langgraph --description "books travel" --default',
  ],
  "agent list": ["agent list", "agent list --all"],
  "agent use": ["agent use alice"],
  "agent reissue": ["agent reissue", "--agent alice agent reissue"],
  "agent rekey": ["agent rekey alice", `agent rekey alice --did ${BOB}`],
  "agent revoke": ['agent revoke alice --reason "laptop lost"', `agent revoke ${BOB} --yes`],
  pair: ["pair start", "pair peers"],
  "pair start": ["pair start", "pair start --wait --ttl-seconds 600"],
  "pair confirm": ["pair confirm spp_AbC123"],
  "pair status": ["pair status spp_AbC123"],
  "pair remove": [`pair remove ${BOB}`],
  "pair peers": ["pair peers", "pair peers --json"],
  group: ["group create reviewers", "group list"],
  "group create": ["group create reviewers"],
  "group invite": [`group invite grp_${ID} --role member`],
  "group join": ["group join spg_AbC123"],
  "group list": ["group list"],
  "group show": [`group show grp_${ID}`],
  "group rename": [`group rename grp_${ID} reviewers`],
  "group remove": [`group remove grp_${ID} ${BOB}`],
  "group leave": [`group leave grp_${ID}`],
  "group delete": [`group delete grp_${ID} --yes`],
  send: [
    'send bob --text "hello Bob"',
    `send ${BOB} '{"task":"review"}' --conversation review-7 --wait 5`,
    "send bob --file report.json",
  ],
  delivery: [`delivery ${ID}`],
  listen: ["listen", "listen --count 1 --json"],
  connect: [],
  "connect status": ["connect status", "--agent alice connect status --json"],
  "connect install": [
    "connect install --forward-to http://127.0.0.1:3000/messages --inbox",
    "connect install --exec 'python3 handle.py' --inbox",
  ],
  "connect uninstall": ["connect uninstall"],
  "connect logs": ["connect logs", "connect logs --follow"],
  inbox: ["inbox list", `inbox retry ${ID}`],
  "inbox list": ["inbox list", "inbox list --state waiting --limit 20"],
  "inbox show": [`inbox show ${ID}`],
  "inbox retry": [`inbox retry ${ID}`],
  "inbox drop": [`inbox drop ${ID}`],
  "dead-letters": ["dead-letters list", "dead-letters replay --all"],
  "dead-letters list": ["dead-letters list"],
  "dead-letters replay": [`dead-letters replay ${ID}`, "dead-letters replay --all"],
  "dead-letters purge": [`dead-letters purge ${ID}`, "dead-letters purge --all --yes"],
  device: ["device request phone --scopes relay,send", "device list"],
  "device request": ['device request phone --scopes relay,send --label "Ada\'s phone"'],
  "device key": [`device key phone --of ${BOB}`],
  "device list": ["device list"],
  "device approve": [`device approve ${ID}`],
  "device reject": [`device reject ${ID}`],
  "device rename": [`device rename ${ID} "Ada's phone"`],
  "device claim": ["device claim phone"],
  "device rotate": ["device rotate --device phone", `device rotate ${ID} --scopes relay`],
  "device revoke": [`device revoke ${ID}`],
  "device remove": [`device remove ${ID} --yes`],
  shared: ["shared rotate --secret-file relay.secret"],
  "shared rotate": ["shared rotate --secret-file relay.secret"],
  task: ["task create --name review-7 --params '{\"pull\":7}'", "task list"],
  "task create": ["task create --name review-7 --params '{\"pull\":7}'", "task create --for alice"],
  "task list": ["task list", "task list --all --json"],
  "task get": [`task get ${ID}`, "task get review-7 --name"],
  "task cancel": [`task cancel ${ID}`],
  "task interrupt": [`task interrupt ${ID}`],
  "task update": [`task update ${ID} completed --result '{"merged":true}'`],
  "task watch": [`task watch ${ID}`],
  "task delete": [`task delete ${ID} --yes`],
  "task share": [`task share ${ID} agent:${BOB} --as viewer`, `task share ${ID} agent:${BOB} --ttl-seconds 86400`],
  "task unshare": [`task unshare ${ID} agent:${BOB} --as viewer`],
  "task send": [`task send ${ID} '{"say":"go on"}'`],
  apikey: ["apikey create ci --scopes tasks:read", "apikey list"],
  "apikey create": ["apikey create ci --scopes tasks:read --expires-in-days 30"],
  "apikey list": ["apikey list"],
  "apikey delete": [`apikey delete ${ID}`],
  authz: [`authz check agent:${BOB} viewer task:${ID}`, "authz reconcile"],
  "authz check": [`authz check agent:${BOB} viewer task:${ID}`],
  "authz explain": [`authz explain agent:${BOB} viewer task:${ID}`],
  "authz objects": [`authz objects agent:${BOB} viewer task`],
  "authz write": [`authz write task:${ID}#viewer@agent:${BOB}`],
  "authz delete": [`authz delete task:${ID}#viewer@agent:${BOB}`],
  "authz read": [`authz read --object task:${ID}`],
  "authz reconcile": ["authz reconcile", "authz reconcile --repair"],
  "authz enforce": ["authz enforce acme on"],
  trust: ["trust list"],
  "trust list": ["trust list", "trust list --json"],
  "trust remove": [`trust remove alice ${BOB}`],
  invite: ["invite create --name bob", "invite list"],
  "invite create": ["invite create --name bob", "invite create --name team --uses 5 --ttl-seconds 86400"],
  "invite list": ["invite list"],
  "invite revoke": [`invite revoke ${ID}`],
  join: ["join 'https://gate.example.com/join#spi_AbC123'", "join - --name bob < link.txt"],
  operator: ["operator create ada viewer", "operator list"],
  "operator create": ["operator create ada viewer --expires-in-days 90"],
  "operator list": ["operator list"],
  "operator revoke": [`operator revoke ${ID}`],
  audit: ["audit", "audit list --limit 20"],
  "audit list": ["audit list --since 12h", "audit list --action device.token.rotate --json"],
  deploy: [],
  doctor: ["doctor", "--agent alice doctor --json"],
  completion: [
    "completion bash > ~/.local/share/bash-completion/completions/sallyport",
    "completion zsh > ~/.zfunc/_sallyport          # with ~/.zfunc in $fpath",
    "completion fish > ~/.config/fish/completions/sallyport.fish",
  ],
};

/** @returns a command's words without the program's own name, e.g. `agent register` */
export function wordsOf(command: Command): string {
  return command.parent === null ? "" : `${wordsOf(command.parent)} ${command.name()}`.trim();
}

/** Adds its examples to the help of every command; those that show their own have none here. */
export function addExamples(command: Command): void {
  const lines = EXAMPLES[wordsOf(command)] ?? [];
  if (lines.length > 0)
    command.addHelpText("after", `\nExamples:\n${lines.map((line) => `  sallyport ${line}`).join("\n")}\n`);
  for (const each of command.commands) addExamples(each);
}
