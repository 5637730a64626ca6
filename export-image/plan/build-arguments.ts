import { cachesRead, quoted } from './cache.ts';
import type { BuildInputs } from '../inputs.ts';
import { type Attestations, noAttestations } from './push-plan.ts';
import { invalidInput } from '../../shared/base/errors.ts';
import { quoteForeign } from '../../shared/base/text.ts';
import { formatPlatform, type Platform } from '../../shared/image/platform.ts';
import type { LayerCompression } from '../../shared/image/manifest.ts';
import type { EventFacts } from '../../shared/image/workflow-event.ts';

/** A secret that buildx reads from a file or from a variable of the step. */
export interface PassedSecret {
  readonly id: string;
  readonly from: 'src' | 'env';
  /** The file's path or the variable's name. */
  readonly place: string;
}

/** A secret of the build. A value is passed in a file, never on a command line. */
export type BuildSecret = PassedSecret | { readonly id: string; readonly from: 'value'; readonly value: string };

/**
 * Returns the secrets of all three inputs. An empty secret is omitted with a warning, as in docker/build-push-action, because a pull
 * request from a fork has no secrets.
 * @throws HandoverError `invalid-input` for a malformed item. The message doesn't show the item.
 */
export function parseSecrets(build: BuildInputs, warnings: string[]): readonly BuildSecret[] {
  const read = (
    items: readonly string[],
    input: string,
    what: string,
    secretOf: (id: string, text: string) => BuildSecret,
  ): readonly BuildSecret[] =>
    items.flatMap((item, position) => {
      const at = item.indexOf('=');
      const id = item.slice(0, at).trim();
      if (at < 0 || id === '') {
        throw invalidInput(
          `Item ${String(position + 1)} of the input \`${input}\` does not have the form id=${what} (it is not shown here).`,
          `Write one id=${what} per line. Put a multi-line value in double quotes together with its id: "id=first line…".`,
        );
      }
      const text = item.slice(at + 1);
      if (text.trim() !== '') return [secretOf(id, text)];
      warnings.push(
        `The secret "${quoteForeign(id)}" in the input \`${input}\` is empty and was omitted. A secret is empty if the ` +
          'repository lacks it, and in pull requests from forks.',
      );
      return [];
    });
  return [
    ...read(build.secrets, 'secrets', 'value', (id, value) => ({ id, from: 'value', value })),
    ...read(build.secretFiles, 'secret-files', 'path', (id, place) => ({ id, from: 'src', place })),
    ...read(build.secretEnvs, 'secret-envs', 'VARIABLE', (id, place) => ({ id, from: 'env', place })),
  ];
}

/** Returns the value of `--secret`, in CSV format. */
function formatSecret({ id, from, place }: PassedSecret): string {
  const field = `${from}=${place}`;
  return `id=${id},${/[",]/.test(field) ? quoted(field) : field}`;
}

/** An output of the build. */
export type Exporter =
  /** No output: the build only writes a cache. */
  | { readonly kind: 'nothing' }
  | {
      readonly kind: 'oci-layout';
      readonly directory: string;
      readonly compression: LayerCompression;
      /** Set only if the build doesn't push. */
      readonly attested?: Attested;
    }
  /** The engine, under a temporary tag. The image's ID is written to a file. */
  | { readonly kind: 'engine'; readonly idFile: string; readonly name: string }
  /** Registries, under these references. Facts about the push are written to a file. */
  | {
      readonly kind: 'registry';
      readonly metadataFile: string;
      readonly compression: LayerCompression;
      readonly attested: Attested;
    };

/** Attestations, and the names that they give to the image. */
interface Attested {
  readonly attestations: Attestations;
  readonly references: readonly string[];
}

/**
 * Rejects lines that buildx would reject during the build, and build arguments that it would ignore. As in buildx, a build argument without
 * `=` gets its value from the environment, and a label without `=` is empty.
 * @throws HandoverError `invalid-input`
 */
export function requireBuildLines({ buildArgs, buildContexts, labels }: BuildInputs): void {
  const forms = [
    ['build-args', buildArgs, /^[^\s=]+(?:=|$)/, 'NAME=value (or NAME alone for the value in the environment)'],
    ['labels', labels, /^(?:[^\s=]+$|[^=]+=)/, 'name=value'],
    ['build-contexts', buildContexts, /^[^\s=]+=./, 'name=path'],
  ] as const;
  for (const [input, lines, form, expected] of forms) {
    const wrong = lines.findIndex((line) => !form.test(line));
    if (wrong === -1) continue;
    throw invalidInput(
      `Line ${String(wrong + 1)} of the input \`${input}\` is "${quoteForeign(lines[wrong] ?? '')}"; expected ${expected}.`,
      'Write one per line. Put a multi-line value in double quotes together with its name.',
    );
  }
}

/**
 * Returns the arguments of `docker buildx build`. If a build pushes and writes an OCI layout, both have the same attestations, in an index
 * with the image.
 * @param exporters the outputs of the build. Several outputs need BuildKit 0.13, and don't work with the docker driver on the classic
 *   store.
 */
export function buildArguments(
  build: BuildInputs,
  platforms: readonly Platform[],
  exporters: readonly Exporter[],
  secrets: readonly PassedSecret[],
): readonly string[] {
  const each = (flag: string, values: readonly string[]): readonly string[] => values.flatMap((value) => [flag, value]);
  const one = (flag: string, value: string | undefined): readonly string[] =>
    value === undefined ? [] : [flag, value];
  const [attested] = exporters.flatMap((exporter) => ('attested' in exporter ? (exporter.attested ?? []) : []));
  const { provenance, sbom } = attested?.attestations ?? noAttestations;
  const isAttested = [provenance, sbom].some((value) => value !== 'false');
  return [
    ...one('--builder', build.builder),
    ...one('--file', build.file),
    ...one('--target', build.target),
    ...['--platform', platforms.map(formatPlatform).join(',')],
    ...[`--provenance=${provenance}`, `--sbom=${sbom}`],
    ...exporters.flatMap((exporter) => exporterArguments(exporter, isAttested ? attested?.references : undefined)),
    ...each('--build-arg', build.buildArgs),
    ...each('--build-context', build.buildContexts),
    ...each('--label', build.labels),
    ...each('--secret', secrets.map(formatSecret)),
    ...each('--ssh', build.ssh),
    ...each('--cache-from', cachesRead(build.cacheFrom)),
    ...each('--cache-to', build.cacheTo),
    ...one('--network', build.network),
    ...(build.noCache ? ['--no-cache'] : []),
    ...(build.pull ? ['--pull'] : []),
    ...each('--allow', build.allow),
    ...each('--add-host', build.addHosts),
    ...one('--shm-size', build.shmSize),
    ...each('--ulimit', build.ulimit),
    '--',
    build.context,
  ];
}

/** @param attestedAs the references in the attestations */
function exporterArguments(exporter: Exporter, attestedAs: readonly string[] | undefined): readonly string[] {
  if (exporter.kind === 'nothing') return ['--output', 'type=cacheonly'];
  if (exporter.kind === 'engine') return ['--load', '--tag', exporter.name, '--iidfile', exporter.idFile];
  // BuildKit's client writes only the last output's digest into the layout's index. So both outputs need the same attestations, which
  // contain the names.
  const attested = attestedAs === undefined ? [] : ['attestation-inline=true', ...namesOf(attestedAs)];
  if (exporter.kind === 'oci-layout') return ['--output', outputOf(exporter, attested)];
  // With the layout's layers and media types, the manifest has the same digest in both. No copy is kept in the engine's store.
  const image = ['type=image,push=true,store=false,oci-mediatypes=true', ...compressionOf(exporter)];
  const output = [...image, ...namesOf(exporter.attested.references)].join(',');
  return ['--metadata-file', exporter.metadataFile, '--output', output];
}

/**
 * Returns the value of `--output`, in CSV format.
 * @param more additional fields
 */
export function outputOf(exporter: Extract<Exporter, { kind: 'oci-layout' }>, more: readonly string[] = []): string {
  return ['type=oci,tar=false', ...compressionOf(exporter), ...more, quoted(`dest=${exporter.directory}`)].join(',');
}

function namesOf(references: readonly string[]): readonly string[] {
  return references.length === 0 ? [] : [quoted(`name=${references.join(',')}`)];
}

function compressionOf({ compression }: { readonly compression: LayerCompression }): readonly string[] {
  const { format, level } = compression;
  return [`compression=${format}`, ...(level === undefined ? [] : [`compression-level=${String(level)}`])];
}

const placeholder = /\{\{\s*defaultContext\s*\}\}/g;

/**
 * Replaces `{{defaultContext}}` in `context` and `build-contexts` with this run's commit, as docker/build-push-action does
 * (docker/actions-toolkit, gitContext). For a pull request, the merge ref is used.
 * @param repositoryUrl web address of the repository; empty outside of a workflow
 * @throws HandoverError `invalid-input` outside of a workflow
 */
export function withDefaultContext(build: BuildInputs, { ref, sha }: EventFacts, repositoryUrl: string): BuildInputs {
  const render = (text: string): string =>
    text.replace(placeholder, () => {
      if (repositoryUrl === '') {
        throw invalidInput(
          "The inputs contain {{defaultContext}}, but this step doesn't run for a repository (GITHUB_REPOSITORY is empty).",
          'Set `context` to a path or to the URL of a repository.',
        );
      }
      return `${repositoryUrl}.git#${ref.startsWith('refs/pull/') || sha === '' ? ref : sha}`;
    });
  return { ...build, context: render(build.context), buildContexts: build.buildContexts.map(render) };
}
