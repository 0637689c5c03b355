/** `sallyport deploy`: puts this checkout on Cloudflare. Everything is done once; a run that failed is run again. */
import { join } from "node:path";
import { createInstallationClient } from "../../../client/index.ts";
import {
  findDeployment,
  type Found,
  migrate,
  missingSecrets,
  newDeploymentSecret,
  planOf,
  type SecretName,
  type Step,
  upload,
} from "../../deploy/deployment.ts";
import { issuerProblem, type Project, readProject, writeIssuer } from "../../deploy/project.ts";
import { openWrangler, type Wrangler } from "../../deploy/wrangler.ts";
import { checkoutAbove } from "../../doctor/local-settings.ts";
import { parseAddress } from "../../session/address.ts";
import type { Family } from "../../session/command.ts";
import { askText, mustConfirm } from "../../session/input.ts";
import type { Session } from "../../session/session.ts";
import { DEPLOYMENTS_FILE, openDeployments } from "../../storage/deployments.ts";
import { CliError, EXIT, usage } from "../../terminal/errors.ts";

const READY_WITHIN_MS = 120_000;
const READY_EVERY_MS = 1_000;

type DeployOptions = { dryRun?: boolean; issuer?: string; immediate?: boolean; yes?: boolean };

/** Adds `deploy`. */
export const deployFamily: Family = (program, run) => {
  program
    .command("deploy")
    .description("put this checkout on Cloudflare: database, secrets, migrations, the Worker itself")
    .option("--dry-run", "say what would be done, and do nothing")
    .option("--issuer <url>", "REGISTRY_ISSUER, a name of your own: the authority of every DID, for their lives")
    .option("--immediate", "end every relay socket at once; for a release that closes a hole")
    .option("--yes", "do not ask before it begins")
    .addHelpText(
      "after",
      "\nEach step looks first at what is there, so a run that has failed may be repeated.\nExamples:\n  sallyport deploy --dry-run\n  sallyport deploy --issuer https://agents.your-company.com\n",
    )
    .action((options: DeployOptions) => run((session) => deploy(session, options)));
};

async function deploy(session: Session, options: DeployOptions): Promise<void> {
  const { output, environment, workingFolder } = session;
  const folder = await checkoutAbove(workingFolder);
  if (folder === null) {
    throw new CliError("NO_CHECKOUT", `there is no checkout of Sallyport in ${workingFolder} or above it`, {
      exitCode: EXIT.setup,
      advice: "Clone the repository, and run this in it.",
    });
  }
  const wrangler = await openWrangler(folder, environment);
  const before = await readProject(folder);
  const found = await findDeployment(wrangler, before, environment);
  if (options.dryRun === true) {
    const steps = planOf(withIssuer(before, options.issuer), found);
    await output.result({ folder, dryRun: true, steps }, [...steps.map(planned), "nothing has been done"]);
    return;
  }
  const project = await withChosenIssuer(session, before, options.issuer);
  const plan = planOf(project, found);
  await mustConfirm(session, options.yes === true || !session.interactive, `${plan.map(planned).join("; ")}. Go on?`);
  const done = await carryOut(session, wrangler, project, found, options);
  await report(session, project, done);
}

function withIssuer(project: Project, issuer: string | undefined): Project {
  return issuer === undefined ? project : { ...project, issuer };
}

/** The issuer is never guessed: DIDs are for life. */
async function withChosenIssuer(session: Session, project: Project, given: string | undefined): Promise<Project> {
  if (given === undefined && issuerProblem(project.issuer) === null) return project;
  const asked =
    given ??
    (session.interactive
      ? await askText(
          "REGISTRY_ISSUER: an https URL with a host name of your own, in every DID for its life",
          "https://",
        )
      : undefined);
  if (asked === undefined) {
    throw new CliError("NO_ISSUER", `REGISTRY_ISSUER ${issuerProblem(project.issuer) ?? "is missing"}`, {
      exitCode: EXIT.setup,
      advice:
        "Give a name of your own: --issuer https://agents.your-company.com. It need not answer; it has to be yours.",
    });
  }
  const problem = issuerProblem(asked);
  if (problem !== null) throw usage(`--issuer ${problem}`);
  const issuer = new URL(asked).origin;
  if (issuer !== project.issuer) await writeIssuer(project.folder, issuer);
  return { ...project, issuer };
}

/** What a deployment came to; the secrets that it has set, by name. */
type Done = { readonly url: string; readonly secretsSet: Readonly<Partial<Record<SecretName, string>>> };

async function carryOut(
  session: Session,
  wrangler: Wrangler,
  project: Project,
  found: Found,
  options: DeployOptions,
): Promise<Done> {
  const { output } = session;
  const secretsSet = await secretsFor(session, `${found.account.id}/${project.name}`, missingSecrets(project, found));
  const names = Object.keys(secretsSet).join(" and ");
  output.remark(`database: ${found.hasDatabase ? "there" : `making ${project.databaseName}`}; applying migrations ...`);
  await migrate(wrangler, project, found);
  output.remark(`worker: uploading ${project.name}${names === "" ? "" : ` with ${names}`} ...`);
  const updateObjects = options.immediate === true ? "immediate" : "deferred";
  const targets = await upload(wrangler, secretsSet, { updateObjects });
  const url = session.givenUrl ?? targets.find((target) => target.startsWith("https:")) ?? targets[0];
  if (url === undefined) {
    throw new CliError("NO_ADDRESS", "it is deployed, and wrangler does not say where it answers", {
      exitCode: EXIT.setup,
      advice: "Run this again with --url https://…, the address of the Worker.",
    });
  }
  const address = parseAddress(url);
  output.remark(`ready: waiting for ${address}/ready ...`);
  await untilReady(session, address);
  return { url: address, secretsSet };
}

/** Secrets are on this disk before Cloudflare gets them: a run that ends in between goes on with the same ones. */
async function secretsFor(
  session: Session,
  key: string,
  names: readonly SecretName[],
): Promise<Partial<Record<SecretName, string>>> {
  if (names.length === 0) return {};
  const all = await openDeployments(session.home.path).change((stored) => {
    const kept = stored?.[key] ?? {};
    const made = Object.fromEntries(names.map((name) => [name, kept[name] ?? newDeploymentSecret()]));
    return { ...stored, [key]: { ...kept, ...made } };
  });
  return Object.fromEntries(names.map((name) => [name, all[key]?.[name]]));
}

/** A new Worker takes some seconds to be everywhere. */
async function untilReady(session: Session, url: string): Promise<void> {
  const installation = createInstallationClient(session.connection(url));
  const deadlineMs = Date.now() + READY_WITHIN_MS;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- asked again until it is, or the time is over
    const isReady = await installation.readiness().then(
      ({ ready }) => ready,
      () => false,
    );
    if (isReady) return;
    if (Date.now() > deadlineMs) {
      throw new CliError("NOT_READY", `${url} is deployed, and not ready after two minutes`, {
        exitCode: EXIT.unavailable,
        advice: "`npx wrangler tail` shows its log; `sallyport doctor` looks closer. This may be run again.",
      });
    }
    // oxlint-disable-next-line no-await-in-loop -- as above
    await new Promise((resolve) => setTimeout(resolve, READY_EVERY_MS));
  }
}

async function report(session: Session, project: Project, { url, secretsSet }: Done): Promise<void> {
  const { home, output } = session;
  const stored = await home.settings.get();
  const other = stored?.baseUrl !== undefined && stored.baseUrl !== url ? stored.baseUrl : null;
  if (stored?.baseUrl === undefined) await home.settings.change((settings) => ({ ...settings, baseUrl: url }));
  const { OPERATOR_TOKEN: token } = secretsSet;
  if (other === null && token !== undefined) await home.writeOperatorToken(token, url);
  const names = Object.keys(secretsSet);
  const file = names.length === 0 ? null : join(home.path, DEPLOYMENTS_FILE);
  await output.result({ url, issuer: project.issuer, secretsSet: names, secretsFile: file }, [
    `deployed: ${url}`,
    ...(file === null
      ? []
      : [`${names.join(" and ")} made; the only readable copy is ${file}: keep a copy of that file in a safe place`]),
    other === null
      ? "next: sallyport doctor; sallyport agent register NAME"
      : `this machine is set up for ${other}; to use this one: sallyport init --url ${url} --operator-token-file FILE`,
  ]);
}

function planned({ name, isDone, words }: Step): string {
  return `${name}: ${isDone ? "" : "to do: "}${words}`;
}
