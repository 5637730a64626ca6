import { HandoverError, invalidInput } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';
import type { Platform } from './platform.ts';

/** What runs the workflow, by its product name. */
export type WorkflowHost = 'GitHub' | 'GitHub Enterprise Server' | 'Gitea' | 'Forgejo' | 'act';

/** Returns the next step after an exchange with the services of the workflow's host failed. */
export function retryHint(host: WorkflowHost): string {
  const where = host === 'GitHub' ? 'https://www.githubstatus.com' : `the log of ${host}`;
  return `Re-run the job. If it repeats, look at ${where} and at the proxy of a self-hosted runner.`;
}

/** The machine that the step runs on, in the runner's words; empty where there is no runner. */
export interface Runner {
  /** `RUNNER_OS`: Linux, Windows or macOS. */
  readonly os: string;
  /** `RUNNER_ARCH`: X86, X64, ARM or ARM64. */
  readonly architecture: string;
}

const architectures = new Map([
  ['X64', 'amd64'],
  ['ARM64', 'arm64'],
]);

/**
 * The platform of the containers that fit this machine: Linux, even where it runs in a virtual machine.
 * @throws HandoverError `unsupported-host` when the runner is neither X64 nor ARM64
 */
export function runnerPlatform({ architecture }: Runner): Platform {
  const known = architectures.get(architecture);
  if (known !== undefined) return { os: 'linux', architecture: known };
  throw new HandoverError(
    'unsupported-host',
    `\`platform: native\` needs a runner that is X64 or ARM64; RUNNER_ARCH is "${quoteForeign(architecture)}".`,
    'Set `platform` to the platform of the image, such as linux/arm64.',
  );
}

// Most Windows and macOS runners, and those of other architectures, have no engine for Linux containers.
/** Explains an error by the runner, if that is the cause. */
export function explainRunner(error: unknown, { os, architecture }: Runner): unknown {
  const isUsual = (os === 'Linux' && architectures.has(architecture)) || os === '';
  if (isUsual || !(error instanceof HandoverError)) return error;
  const { code } = error;
  if (code !== 'docker-unavailable' && !(code === 'builder-unsupported' && os === 'Windows')) return error;
  return new HandoverError(
    'unsupported-host',
    `This runner is ${os} ${architecture}, and has no engine that serves: ${error.message}`,
    'Use a Linux runner such as ubuntu-latest (amd64) or ubuntu-24.04-arm (arm64). Or start an engine with Linux containers on this runner in a step before.',
    error,
  );
}

/** The supported container engines, each by the name of its command. */
export type EngineName = 'docker' | 'podman';

/** @throws HandoverError `invalid-input` when the text is neither `docker` nor `podman` */
export function parseEngineName(text: string): EngineName {
  const name = text.trim().toLowerCase();
  if (name === 'docker' || name === 'podman') return name;
  throw invalidInput(
    `The input \`engine\` is "${quoteForeign(text)}"; expected docker or podman.`,
    'Set `engine` to the command that your jobs use, or remove the line for docker.',
  );
}

/**
 * Checks that the engine is Docker, which is required for registries.
 * @param what the input that needs a registry, with its value
 * @throws HandoverError `invalid-input` for another engine
 */
export function requireDocker(engine: EngineName, what: string): void {
  if (engine === 'docker') return;
  throw invalidInput(
    `\`engine: ${engine}\` and ${what} are given together, but registries are reached through docker only.`,
    `Leave one of them out, and use ${engine} itself in a step of its own.`,
  );
}
