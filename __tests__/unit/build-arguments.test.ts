import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { buildInputs } from '../fixtures/export-inputs.ts';
import type { BuildInputs } from '../../export-image/inputs.ts';
import {
  buildArguments,
  parseSecrets,
  type PassedSecret,
  requireBuildLines,
} from '../../export-image/plan/build-arguments.ts';
import { withoutGhaCache } from '../../export-image/plan/cache.ts';
import { parsePlatform } from '../../shared/image/platform.ts';

const plain: BuildInputs = { ...buildInputs, context: '.', cacheFrom: [] };
const platform = parsePlatform('linux/amd64');
const compression = { format: 'zstd', level: 1 } as const;
const layout = { kind: 'oci-layout', directory: '/tmp/layout', compression } as const;

function argumentsOf(build: Partial<BuildInputs>, secrets: readonly PassedSecret[] = []) {
  return buildArguments({ ...plain, ...build }, [platform], [layout], secrets);
}

/** Returns the values of a flag, in order. */
function valuesOf(flag: string, list: readonly string[]): readonly string[] {
  return list.flatMap((item, position) => (list[position - 1] === flag ? [item] : []));
}

describe('the arguments of buildx build', () => {
  test('a build without options has a platform, one image without attestations, the OCI layout, and the context at the end', () => {
    expect(argumentsOf({})).toEqual([
      '--platform',
      'linux/amd64',
      '--provenance=false',
      '--sbom=false',
      '--output',
      'type=oci,tar=false,compression=zstd,compression-level=1,"dest=/tmp/layout"',
      '--',
      '.',
    ]);
  });

  test('a build into the engine uses --load with the ID in a file, and has no other output', () => {
    const list = buildArguments(plain, [platform], [{ kind: 'engine', idFile: '/tmp/id', name: 'a.invalid/b:1' }], []);
    expect(list).toEqual(expect.arrayContaining(['--load', '--tag', 'a.invalid/b:1', '--iidfile', '/tmp/id']));
    expect(list).not.toContain('--output');
  });

  test('a push to a registry has one output with all references as names, in addition to the layout (S1.6)', () => {
    const references = ['ghcr.io/a/b:1', 'ghcr.io/a/b:2'];
    const attestations = { provenance: 'mode=max,builder-id=https://a/1', sbom: 'true', areWanted: true };
    const pushed = {
      kind: 'registry',
      ...{ metadataFile: '/tmp/pushed.json', compression, attested: { references, attestations } },
    } as const;
    const list = buildArguments(plain, [platform, parsePlatform('linux/arm64')], [layout, pushed], []);
    expect(valuesOf('--platform', list)).toEqual(['linux/amd64,linux/arm64']);
    expect(valuesOf('--metadata-file', list)).toEqual(['/tmp/pushed.json']);
    expect(list).toEqual(expect.arrayContaining(['--provenance=mode=max,builder-id=https://a/1', '--sbom=true']));
    expect(valuesOf('--output', list)).toEqual([
      'type=oci,tar=false,compression=zstd,compression-level=1,attestation-inline=true,"name=ghcr.io/a/b:1,ghcr.io/a/b:2","dest=/tmp/layout"',
      'type=image,push=true,store=false,oci-mediatypes=true,compression=zstd,compression-level=1,"name=ghcr.io/a/b:1,ghcr.io/a/b:2"',
    ]);
  });

  test.each([
    [['ghcr.io/a/b:1'], 'attestation-inline=true,"name=ghcr.io/a/b:1",'],
    [[], 'attestation-inline=true,'],
  ])('a layout without a push has the attestations with the names %j', (references, more) => {
    const attestations = { provenance: 'mode=max', sbom: 'false', areWanted: true };
    const attested = { ...layout, attested: { references, attestations } };
    const list = buildArguments(plain, [platform], [attested], []);
    expect(list).toEqual(expect.arrayContaining(['--provenance=mode=max', '--sbom=false']));
    expect(valuesOf('--output', list)).toEqual([
      `type=oci,tar=false,compression=zstd,compression-level=1,${more}"dest=/tmp/layout"`,
    ]);
  });

  const pairs = ['a=1', 'b=two words, and a comma'];
  test.each([
    ['buildArgs', '--build-arg', pairs],
    ['buildContexts', '--build-context', ['base=docker-image://node:24', 'src=./src']],
    ['labels', '--label', pairs],
    ['ssh', '--ssh', ['default', 'key=/run/key']],
    ['cacheFrom', '--cache-from', ['type=gha', 'type=registry,ref=ghcr.io/a/b']],
    ['cacheTo', '--cache-to', ['type=gha,mode=max']],
    ['allow', '--allow', ['network.host', 'security.insecure']],
    ['addHosts', '--add-host', ['a:10.0.0.1', 'b:10.0.0.2']],
    ['ulimit', '--ulimit', ['nofile=1024:1024']],
  ] as const)('each line of %s is passed as a separate %s, in order (S1.6)', (input, flag, values) => {
    expect(valuesOf(flag, argumentsOf({ [input]: values }))).toEqual(values);
  });

  test.each([
    ['builder', '--builder', 'mine'],
    ['file', '--file', 'docker/Dockerfile'],
    ['target', '--target', 'runtime'],
    ['network', '--network', 'none'],
    ['shmSize', '--shm-size', '1g'],
  ] as const)('%s is passed as %s, and omitted when it is not set', (input, flag, value) => {
    expect(valuesOf(flag, argumentsOf({ [input]: value }))).toEqual([value]);
    expect(argumentsOf({})).not.toContain(flag);
  });

  test('no-cache and pull are flags without a value', () => {
    expect(argumentsOf({ noCache: true, pull: true })).toEqual(expect.arrayContaining(['--no-cache', '--pull']));
    const without = argumentsOf({});
    expect(without).not.toContain('--no-cache');
    expect(without).not.toContain('--pull');
  });

  test('a context that looks like a flag is passed as the context', () => {
    expect(argumentsOf({ context: '--push' }).slice(-2)).toEqual(['--', '--push']);
  });

  test('a folder with a comma in its name is one field of the output', () => {
    const list = buildArguments(plain, [platform], [{ ...layout, directory: '/tmp/a,b' }], []);
    expect(valuesOf('--output', list)).toEqual([
      'type=oci,tar=false,compression=zstd,compression-level=1,"dest=/tmp/a,b"',
    ]);
  });

  test('a folder with a quotation mark in its name is one field of the output', () => {
    const list = buildArguments(plain, [platform], [{ ...layout, directory: '/tmp/the "fast" disk' }], []);
    expect(valuesOf('--output', list)).toEqual([
      'type=oci,tar=false,compression=zstd,compression-level=1,"dest=/tmp/the ""fast"" disk"',
    ]);
  });

  test('secrets are passed as files and variables, in the order of their inputs', () => {
    const list = argumentsOf({}, [
      { id: 'token', from: 'src', place: '/tmp/s/0' },
      { id: 'npmrc', from: 'src', place: './.npmrc' },
      { id: 'key', from: 'env', place: 'KEY' },
    ]);
    expect(valuesOf('--secret', list)).toEqual(['id=token,src=/tmp/s/0', 'id=npmrc,src=./.npmrc', 'id=key,env=KEY']);
  });

  test('a file with a comma or quotes in its path is one field', () => {
    const list = argumentsOf({}, [{ id: 'a', from: 'src', place: './x,"y"' }]);
    expect(valuesOf('--secret', list)).toEqual(['id=a,"src=./x,""y"""']);
  });

  test('property: the value of a secret is never on the command line', () => {
    const secret = fc.tuple(fc.stringMatching(/^[a-z]{1,8}$/), fc.uuid());
    fc.assert(
      fc.property(fc.uniqueArray(secret, { selector: ([id]) => id, maxLength: 4 }), (secrets) => {
        const build = { secrets: secrets.map(([id, value]) => `${id}=${value}`) };
        const list = argumentsOf(
          build,
          secrets.map(([id], position) => ({ id, from: 'src', place: `/tmp/${String(position)}` })),
        );
        for (const [, value] of secrets) expect(list.join(' ')).not.toContain(value);
        expect(valuesOf('--secret', list)).toHaveLength(secrets.length);
      }),
    );
  });
});

// docker/actions-toolkit, __tests__/buildx/build.test.ts, "resolveSecret": how a line is divided, and which lines are invalid.
describe('secrets', () => {
  const none: string[] = [];

  test('secrets are divided at the first =, and the value contains later = and its line ends', () => {
    const secrets = ['A_SECRET=abcdef0123456789', 'a=b=c==', 'key=-----BEGIN\nline 2\n', ' token= s3cret '];
    expect(parseSecrets({ ...plain, secrets }, none)).toEqual([
      { id: 'A_SECRET', from: 'value', value: 'abcdef0123456789' },
      { id: 'a', from: 'value', value: 'b=c==' },
      { id: 'key', from: 'value', value: '-----BEGIN\nline 2\n' },
      { id: 'token', from: 'value', value: ' s3cret ' },
    ]);
  });

  test('secrets are followed by secret files and secret variables', () => {
    const build = { ...plain, secrets: ['a=1'], secretFiles: ['foo=./secret.txt'], secretEnvs: ['BAR=VARIABLE'] };
    expect(parseSecrets(build, none)).toEqual([
      { id: 'a', from: 'value', value: '1' },
      { id: 'foo', from: 'src', place: './secret.txt' },
      { id: 'BAR', from: 'env', place: 'VARIABLE' },
    ]);
  });

  test.each([
    ['secrets', { secrets: ['ok=1', 'token='] }, 1],
    ['secrets', { secrets: ['ok=1', 'token=\n'] }, 1],
    ['secret-files', { secretFiles: ['token='] }, 0],
    ['secret-envs', { secretEnvs: ['token='] }, 0],
  ])(
    'secrets with an empty value in %s are omitted with a warning, because a fork has no secrets (%j)',
    (input, build, left) => {
      const warnings: string[] = [];
      expect(parseSecrets({ ...plain, ...build }, warnings)).toHaveLength(left);
      expect(warnings).toEqual([expect.stringContaining(`"token" in the input \`${input}\` is empty`)]);
    },
  );

  test.each([
    ['secrets', 'no =', { secrets: ['ok=1', 'hunter2'] }, 2],
    ['secrets', 'no id', { secrets: ['=hunter2'] }, 1],
    ['secret-files', 'no =', { secretFiles: ['hunter2'] }, 1],
    ['secret-envs', 'no id', { secretEnvs: ['ok=1', '=hunter2'] }, 2],
  ])('secrets in %s with %s are refused by their number, without showing the text', (input, _, build, number) => {
    const work = () => parseSecrets({ ...plain, ...build }, none);
    expect(work).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: expect.stringContaining(`Item ${String(number)} of the input \`${input}\``),
      }),
    );
    expect(work).not.toThrow('hunter2');
  });
});

// buildx 0.29 accepts the first column, drops `A B C` silently, and refuses the rest.
describe('build inputs consist of lines with a name and a value (S1.6)', () => {
  test.each([
    ['buildArgs', ['A=1', 'A=', 'A', 'A=b c', 'A=b=c', 'A=two\nlines'], ['A B C', 'A B=c', '=x', 'two\nlines']],
    ['labels', ['a=b', 'a=', 'a', 'a=b c=d', 'a b=c', 'a=two\nlines'], ['a b', '=x', 'the rest of a description']],
    ['buildContexts', ['a=./b', 'a/b:1=docker-image://c', 'a=b=c'], ['a', 'a=', '=./b', 'a b=c']],
  ] as const)('the lines of %s are accepted only with a valid name', (input, good, bad) => {
    requireBuildLines({ ...plain, [input]: good });
    for (const line of bad) {
      const work = () => {
        requireBuildLines({ ...plain, [input]: [good[0], line] });
      };
      expect(work).toThrow(
        expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining('Line 2 of the input') }),
      );
    }
  });
});

describe('the Actions cache', () => {
  test('the Actions cache is read by default, and its omission is reported only when an input names it (S0.3)', () => {
    expect(valuesOf('--cache-from', argumentsOf({ cacheFrom: ['auto', 'type=local,src=/c'] }))).toEqual([
      'type=gha',
      'type=local,src=/c',
    ]);
    const local = 'type=local,src=/c';
    expect(withoutGhaCache(['auto', local])).toEqual({ caches: [local], asked: false });
    expect(withoutGhaCache([local, 'type=gha,scope=a'])).toEqual({ caches: [local], asked: true });
    expect(withoutGhaCache([local])).toEqual({ caches: [local], asked: false });
  });

  test.each([
    ['gha', true],
    [' gha ', true],
    ['type=gha', true],
    ['type=gha,mode=max', true],
    ['scope=x, type=gha', true],
    ['type=registry,ref=ghcr.io/org/gha', false],
    ['type=local,src=/tmp/gha', false],
    ['user/app:gha', false],
    ['', false],
  ])('the Actions cache is recognized in %j: %s (S0.3)', (cache, expected) => {
    expect(withoutGhaCache([cache]).caches).toEqual(expected ? [] : [cache]);
  });
});
