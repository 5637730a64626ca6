import { chooseTags, loweredNotices } from '../../shared/image/tags.ts';
import type { PublishInputs } from '../inputs.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { chooseWanted } from '../../shared/image/artifact-name.ts';
import { parseExpectedDigest } from '../../shared/handed-over/expectations.ts';
import { type OtherRun, planOtherRun } from '../../shared/handed-over/other-run-plan.ts';
import type { Digest } from '../../shared/image/digest.ts';
import {
  formatReference,
  parseReference,
  parseTaggedReference,
  registryHost,
  type Reference,
  type TaggedReference,
} from '../../shared/image/reference.ts';
import { type EventFacts, workflowEvent } from '../../shared/image/workflow-event.ts';

/** All decisions made before any work. */
export interface PublishPlan {
  /** Names, patterns and ids of artifacts. */
  readonly wanted: readonly string[];
  /** Selects one of several images in an artifact. */
  readonly image: Reference | undefined;
  /** The outputs show the first one. */
  readonly tags: readonly [TaggedReference, ...TaggedReference[]];
  /** Repositories to mount blobs from. */
  readonly mountFrom: readonly string[];
  readonly login: { readonly username: string; readonly password: string } | undefined;
  /** Path of a PEM certificate. */
  readonly authorityPath: string | undefined;
  /** The digests of all images; empty accepts any. */
  readonly expectedConfigDigests: readonly Digest[];
  readonly expectedRevision: string | undefined;
  /** The run with the artifacts; undefined for this job's own run. */
  readonly other: OtherRun | undefined;
  readonly notices: readonly string[];
}

export interface PublishFacts {
  readonly event: EventFacts;
  /** The variables of docker/metadata-action: `DOCKER_METADATA_OUTPUT_*`, by name. */
  readonly metadata: Readonly<Record<string, string>>;
  /** `owner/name` of this job's repository. */
  readonly ownRepository: string;
}

/** @throws HandoverError `invalid-input` */
export function planPublish(inputs: PublishInputs, facts: PublishFacts): PublishPlan {
  const notices: string[] = [];
  const { event, metadata, ownRepository } = facts;
  const [first, ...others] = chooseTags(inputs, { event: workflowEvent(event), metadata }, notices);
  if (first === undefined)
    throw invalidInput('`tags` contains no reference to publish under.', 'Write one reference per line.');
  const tags = [first, ...others] as const;
  notices.push(...loweredNotices(tags));
  const wanted = chooseWanted(inputs.artifactNames, inputs.artifactIds);
  const run = { ...inputs, repository: inputs.runRepository, allowForkRuns: false };
  return {
    wanted,
    image: inputs.image === undefined ? undefined : parseTaggedReference(inputs.image),
    tags,
    mountFrom: inputs.mountFrom.map(repositoryOf),
    login: planLogin(inputs, tags),
    authorityPath: inputs.registryCa,
    expectedConfigDigests: inputs.expectedConfigDigests.map(parseExpectedDigest),
    expectedRevision: inputs.expectedRevision,
    other: planOtherRun(run, { wanted, ownRepository, repositoryInput: 'run-repository' }),
    notices,
  };
}

function repositoryOf(text: string): string {
  const { repository, tag, digest } = parseReference(text);
  if (tag === undefined && digest === undefined) return repository;
  throw invalidInput(
    `\`mount-from\` has "${quoteForeign(text)}"; expected a repository without a tag or digest.`,
    `Write ${formatReference({ repository })}.`,
  );
}

function planLogin({ username, password }: PublishInputs, tags: PublishPlan['tags']): PublishPlan['login'] {
  if (username !== undefined && password !== undefined) {
    const hosts = [...new Set(tags.map(({ repository }) => registryHost(repository)))];
    if (hosts.length === 1) return { username, password };
    throw invalidInput(
      `\`username\` and \`password\` are given, but \`tags\` names ${String(hosts.length)} registries: ${hosts.join(', ')}.`,
      'Log in to each with `docker/login-action` before this step, and leave out both inputs.',
    );
  }
  if (username === undefined && password === undefined) return undefined;
  const [given, missing] = username === undefined ? ['password', 'username'] : ['username', 'password'];
  throw invalidInput(
    `\`${given}\` is given without \`${missing}\`.`,
    'Set both, or neither to use the credentials stored by `docker/login-action`. In a fork’s run, a missing secret is empty.',
  );
}
