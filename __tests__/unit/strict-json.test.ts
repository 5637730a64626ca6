import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { goProgram, describeMissingGo } from '../../dev/go-parts.ts';
import { readStrictJson } from '../../shared/base/strict-json.ts';
import { digestOf } from '../../shared/image/digest.ts';
import {
  type Descriptor,
  parseArchiveManifest,
  parseConfig,
  parseIndex,
  parseManifest,
} from '../../shared/image/manifest.ts';
import { platformOf } from '../../shared/image/platform.ts';
import { configShape, manifestShape } from '../../shared/image/shapes.ts';
import { codeOf, mutated, settings } from '../fixtures/any-bytes.ts';
import { json } from '../fixtures/image.ts';

const digests = ['config', 'layer', 'other'].map((text) => digestOf(text));
const [configDigest = '', layerDigest = '', otherDigest = ''] = digests;
const configType = 'application/vnd.oci.image.config.v1+json';
const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip';
const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const layer = { mediaType: layerType, digest: layerDigest, size: 12 };

const manifest = {
  schemaVersion: 2,
  mediaType: manifestType,
  config: { mediaType: configType, digest: configDigest, size: 7 },
  layers: [layer],
  annotations: { a: 'b' },
};
const index = {
  schemaVersion: 2,
  manifests: [
    {
      mediaType: manifestType,
      digest: otherDigest,
      size: 9,
      platform: { os: 'linux', architecture: 'arm', variant: 'v7' },
    },
  ],
};
const config = {
  created: '2026-01-02T03:04:05Z',
  architecture: 'amd64',
  os: 'linux',
  config: { Env: ['A=1'], Cmd: ['sh'], Labels: { a: 'b' }, Volumes: { '/data': {} } },
  rootfs: { type: 'layers', diff_ids: [layerDigest] },
  history: [{ created_by: 'RUN x', empty_layer: true }],
};
const archive = [{ Config: 'a.json', RepoTags: ['charon:local'], Layers: ['b.tar'] }];

type Parse = (bytes: Buffer, where: string) => unknown;
type Case = readonly [string, Parse, Buffer | string];

/** The text of a document with an addition before one of its members. */
const before = (document: unknown, member: string, put: string): string =>
  JSON.stringify(document).replace(`"${member}":`, `${put},"${member}":`);
const twin = JSON.stringify({ ...manifest.config, digest: otherDigest });

describe('an ambiguous or invalid document is refused (B.11)', () => {
  test.each<Case>([
    ['config and Config', parseManifest, before(manifest, 'layers', `"Config":${twin}`)],
    ['config twice', parseManifest, before(manifest, 'layers', `"config":${twin}`)],
    ['config twice, once with escapes', parseManifest, before(manifest, 'layers', `"\\u0063onfig":${twin}`)],
    ['Config alone', parseManifest, JSON.stringify(manifest).replace('"config"', '"Config"')],
    ['layers with a long s', parseManifest, before(manifest, 'layers', '"layer\u017f":[]')],
    ['layers with a long s alone', parseManifest, JSON.stringify(manifest).replace('"layers"', '"layer\u017f"')],
    [
      'Digest in a layer',
      parseManifest,
      before(manifest, 'annotations', '"x":1').replace('"size":12', `"size":12,"Digest":"${otherDigest}"`),
    ],
    ['SIZE in a layer', parseManifest, JSON.stringify(manifest).replace('"size":12', '"SIZE":12')],
    [
      'mediaType of an index',
      parseManifest,
      JSON.stringify(manifest).replace(manifestType, 'application/vnd.oci.image.index.v1+json'),
    ],
    ['manifests in a manifest', parseManifest, JSON.stringify({ ...manifest, manifests: [] })],
    ['layers of schema 1 in a manifest', parseManifest, JSON.stringify({ ...manifest, fsLayers: [] })],
    ['a null among layers', parseManifest, JSON.stringify({ ...manifest, layers: [layer, null] })],
    ['a text among layers', parseManifest, JSON.stringify({ ...manifest, layers: ['a'] })],
    ...['12.0', '1.2e1', '-0', '9007199254740993', '1e3', '"12"', '-12'].map((size): Case => [
      `the size ${size}`,
      parseManifest,
      JSON.stringify(manifest).replace('"size":12', `"size":${size}`),
    ]),
    ['a number as an annotation', parseManifest, JSON.stringify({ ...manifest, annotations: { a: 1 } })],
    ['null as an annotation', parseManifest, JSON.stringify({ ...manifest, annotations: { a: null } })],
    ['an annotation twice', parseManifest, JSON.stringify(manifest).replace('"a":"b"', '"a":"b","a":"c"')],
    ['layers in an index', parseIndex, JSON.stringify({ ...index, layers: [] })],
    ['config in an index', parseIndex, JSON.stringify({ ...index, config: manifest.config })],
    ['a platform’s OS', parseIndex, JSON.stringify(index).replace('"os"', '"OS"')],
    ['Manifests', parseIndex, before(index, 'manifests', '"Manifests":[]')],
    ['config and CONFIG of a config', parseConfig, before(config, 'rootfs', '"CONFIG":{}')],
    ['Labels and labels', parseConfig, JSON.stringify(config).replace('"Labels"', '"labels":{"a":"c"},"Labels"')],
    ['labels alone', parseConfig, JSON.stringify(config).replace('"Labels"', '"labels"')],
    ['a label twice', parseConfig, JSON.stringify(config).replace('"a":"b"', '"a":"b","\\u0061":"c"')],
    ['a label that isn’t a text', parseConfig, JSON.stringify(config).replace('"a":"b"', '"a":5')],
    ['diff_IDs', parseConfig, before(config, 'diff_ids', '"diff_IDs":[]')],
    ['a diff ID that is null', parseConfig, JSON.stringify(config).replace(`"${layerDigest}"`, 'null')],
    ['a diff ID of another type', parseConfig, JSON.stringify(config).replace('sha256:', 'sha512:')],
    ['Architecture', parseConfig, before(config, 'os', '"Architecture":"arm64"')],
    ['a command that is a text', parseConfig, JSON.stringify(config).replace('["sh"]', '"sh"')],
    [
      'members of an unknown object that differ only in case',
      parseConfig,
      before(config, 'os', '"moby.buildkit.x":{"a":1,"A":2}'),
    ],
    ['__proto__', parseConfig, before(config, 'os', '"__proto__":{"os":"windows"}')],
    ['a NUL', parseConfig, JSON.stringify(config).replace('"A=1"', '"A=1\\u0000"')],
    ['half a character', parseConfig, JSON.stringify(config).replace('"A=1"', '"A=\\ud800"')],
    ['half a character in a name', parseConfig, before(config, 'os', '"\\udc00":1')],
    ['bytes that aren’t UTF-8', parseConfig, Buffer.from(JSON.stringify(config).replace('A=1', 'A=\u00ff'), 'latin1')],
    ['a byte-order mark', parseConfig, `\ufeff${JSON.stringify(config)}`],
    ['text after the end', parseConfig, `${JSON.stringify(config)}{}`],
    ['a NUL after the end', parseConfig, `${JSON.stringify(config)}\0`],
    ['UTF-16', parseConfig, Buffer.from(JSON.stringify(config), 'utf16le')],
    ['nothing', parseConfig, ''],
    ['an extra comma', parseConfig, JSON.stringify(config).replace('"sh"]', '"sh",]')],
    ['a hundred and one levels', parseConfig, before(config, 'os', `"x":${'['.repeat(101)}${']'.repeat(101)}`)],
    [
      'config in an archive’s manifest',
      parseArchiveManifest,
      JSON.stringify(archive).replace('"Config"', '"config":"c.json","Config"'),
    ],
    ['a tag that is null', parseArchiveManifest, JSON.stringify([{ ...archive[0], RepoTags: [null] }])],
  ])('%s', async (_, parse, text) => {
    const bytes = Buffer.isBuffer(text) ? text : Buffer.from(text);
    expect(await codeOf(() => parse(bytes, 'it'))).toBe('tarball-invalid');
  });

  test.each<readonly [string, Parse, unknown]>([
    ['an index', parseIndex, index],
    ['a manifest', parseManifest, manifest],
    ['a config', parseConfig, config],
  ])('the error for a sha512 digest in %s shows that only sha256 is supported', (_, parse, document) => {
    const sha512 = `sha512:${'0f'.repeat(64)}`;
    const bytes = Buffer.from(JSON.stringify(document).replace(/sha256:[0-9a-f]{64}/, sha512));
    expect(() => parse(bytes, 'index.json')).toThrow(/has the digest sha512:0f0f.*only sha256 digests are supported/);
  });

  test('the error shows what is wrong, and where', () => {
    const text = JSON.stringify(config).replace('"Labels"', '"labels":{},"Labels"');
    expect(() => parseConfig(Buffer.from(text), 'config sha256:1')).toThrow(
      'config sha256:1 is not an image config that every engine reads in the same way: it has "labels" in config, which is "Labels" to an engine',
    );
    expect(() => parseConfig(Buffer.from(before(config, 'os', '"X":1,"x":2')), 'it')).toThrow(
      'has "X" and "x" at its top',
    );
  });
});

describe('content that is stored elsewhere is refused', () => {
  const withLayer = (change: object): Buffer => json({ ...manifest, layers: [{ ...layer, ...change }] });
  test.each<readonly [string, Parse, Buffer]>([
    ['a layer with an address', parseManifest, withLayer({ urls: ['https://x.example/layer'] })],
    [
      'a config with an address',
      parseManifest,
      json({ ...manifest, config: { ...manifest.config, urls: ['ftp://x'] } }),
    ],
    ['a manifest with an address', parseIndex, json({ manifests: [{ ...index.manifests[0], urls: ['http://x'] }] })],
    ...[
      'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
      'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd',
      'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    ].map((mediaType) => [mediaType, parseManifest, withLayer({ mediaType })] as const),
    [
      'a foreign layer of a Docker archive',
      parseArchiveManifest,
      json([{ ...archive[0], LayerSources: { [layerDigest]: { ...layer, urls: ['http://x'] } } }]),
    ],
    ['other bytes in the descriptor', parseManifest, withLayer({ data: Buffer.from('other').toString('base64') })],
  ])('%s', async (_, parse, bytes) => {
    expect(await codeOf(() => parse(bytes, 'it'))).toBe('tarball-invalid');
  });

  test('an empty list of addresses, and the same bytes in the descriptor, are accepted', () => {
    const data = Buffer.from('layer').toString('base64');
    expect(parseManifest(withLayer({ urls: [], data, annotations: null }), 'it').layers).toMatchObject([layer]);
  });
});

describe('documents of real tools are read', () => {
  const read = (text: string): unknown => readStrictJson(Buffer.from(text), configShape);

  test.each([
    ['white space around it', ` \t\r\n${JSON.stringify(config)}\n`],
    [
      'BuildKit’s own members',
      before(config, 'os', '"moby.buildkit.cache.v0":"e30=","moby.buildkit.buildinfo.v1":null'),
    ],
    [
      'the config of the container that it was committed from',
      before(config, 'os', '"container_config":{"Cmd":["x"],"Labels":{"A":"1","a":"2"}},"docker_version":"1"'),
    ],
    ['labels that differ in case', JSON.stringify(config).replace('"a":"b"', '"Name":"b","name":"c"')],
    [
      'null for empty values',
      JSON.stringify(config).replace('["A=1"]', 'null').replace('{"a":"b"}', 'null').replace('["sh"]', 'null'),
    ],
    ['numbers of any form in unknown members', before(config, 'os', '"x":[1e400,-0,1.5,9007199254740993]')],
    [
      'a document of an old Docker',
      JSON.stringify({
        ...config,
        Size: 5,
        throwaway: true,
        config: {
          ...config.config,
          Memory: 0,
          CpuShares: 0,
          Image: '',
          ArgsEscaped: true,
          OnBuild: [],
          ExposedPorts: { '80/tcp': {} },
        },
      }),
    ],
    [
      'escapes, and any letters in texts',
      JSON.stringify(config).replace('A=1', 'A=\\"\\\\\\u00e4\\ud83d\\ude00 ſ\u2028\\/'),
    ],
  ])('%s', (_, text) => {
    expect(read(text)).toEqual({ value: JSON.parse(text) });
  });

  test('property: any JSON that JavaScript writes with distinct names is read unchanged', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5, stringUnit: 'grapheme' }), (value) => {
        const names = JSON.stringify(value);
        fc.pre(!names.includes('__proto__') && !names.includes('\\u0000'));
        const outcome = readStrictJson(Buffer.from(names), 'any');
        if ('why' in outcome) expect(outcome.why).toContain('which engines treat as the same name');
        else expect(outcome.value).toEqual(JSON.parse(names));
      }),
      settings,
    );
  });

  test('four megabytes of escapes, of white space or of members are read quickly', () => {
    const size = 4_000_000;
    for (const text of [`"${'\\"'.repeat(size / 2)}"`, `"${'\\\\'.repeat(size / 2)}"`, `${' '.repeat(size)}1`])
      expect(readStrictJson(Buffer.from(text), 'any')).toHaveProperty('value');
    const members = Array.from({ length: 60_000 }, (_, at) => `"${String(at)}":${String(at)}`).join();
    expect(readStrictJson(Buffer.from(`{${members}}`), 'any')).toHaveProperty('value');
    expect(readStrictJson(Buffer.alloc(size * 2, ' '), 'any')).toEqual({ why: 'has more than 4194304 bytes' });
  });

  test('a document with more values than an image has is refused', () => {
    const items = (item: string): string => Array.from({ length: 1_000_000 }, () => item).join();
    for (const text of [`{"layers":[${items('{}')}]}`, `{"x":[${items('0')}]}`, `{"x":[${items('""')}]}`])
      expect(readStrictJson(Buffer.from(text), manifestShape)).toEqual({ why: 'has more than 100000 values' });
  });
});

const noGo = describeMissingGo();
const withGo = noGo === undefined ? describe : describe.skip;
withGo(`compared with Go’s own reader${noGo === undefined ? '' : ` (left out: ${noGo})`}`, () => {
  let program: string;
  let go: { ask(kind: 'm' | 'c' | 'a', text: Buffer): Promise<unknown>; end(): void };
  beforeAll(async () => {
    program = await goProgram(join(import.meta.dirname, '../fixtures/go-reader/main.go'));
    const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    go = {
      ask: async (kind, text) => {
        child.stdin.write(`${kind}${text.toString('base64')}\n`);
        const { value } = await lines.next();
        const answer: unknown = JSON.parse(String(value));
        return answer;
      },
      end: () => child.stdin.end(),
    };
  }, 120_000);
  afterAll(() => {
    go.end();
  });

  test('letters that Go treats as equal are equal here', async () => {
    const child = spawn(program, ['folds'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pairs = String(await buffer(child.stdout))
      .trim()
      .split('\n');
    expect(pairs.length).toBeGreaterThan(2000);
    const letters = pairs.map((line) => line.split(' ').map((code) => String.fromCodePoint(Number(code))));
    const areTwo = ([one = '', other = '']: readonly string[]): boolean =>
      !('why' in readStrictJson(json({ [one]: 1, [other]: 2 }), 'any'));
    expect(letters.filter(areTwo)).toEqual([]);
  });

  const asGo = (descriptor: Descriptor): unknown => {
    const { mediaType, digest, size, platform, annotations } = descriptor;
    return { mediaType, digest, size, annotations, platform };
  };
  const fromGo = (value: unknown): unknown => {
    const { mediaType, digest, size, platform, annotations } = Object(value);
    const { os, architecture, variant } = Object(platform);
    const isNamed = os !== '' && architecture !== '' && platform !== undefined;
    return {
      ...{ mediaType, digest, size, annotations: annotations ?? {} },
      platform: isNamed ? platformOf(os, architecture, variant) : undefined,
    };
  };
  const all = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
  const orNull = (value: unknown): unknown => (value === '' ? null : (value ?? null));
  const members = ['User', 'Env', 'Entrypoint', 'Cmd', 'WorkingDir', 'Labels'] as const;
  const membersOf = (its: object): object => ({
    ...Object.fromEntries(members.map((name) => [name, orNull(Reflect.get(its, name))])),
    // The members of a set have no defined meaning.
    Volumes: Object.keys(Object(Reflect.get(its, 'Volumes'))),
  });

  const kinds = {
    manifest: {
      kind: 'm',
      valid: manifest,
      ours: (bytes: Buffer): unknown => {
        const read = parseManifest(bytes, 'it');
        return { mediaType: read.mediaType, config: asGo(read.config), layers: read.layers.map(asGo) };
      },
      gos: (read: object): unknown => {
        const { mediaType = '', config: itsConfig, layers } = Object(read);
        return {
          mediaType: mediaType === '' ? manifestType : mediaType,
          config: fromGo(itsConfig),
          layers: all(layers).map(fromGo),
        };
      },
    },
    index: {
      kind: 'm',
      valid: index,
      ours: (bytes: Buffer): unknown => parseIndex(bytes, 'it').map(asGo),
      gos: (read: object): unknown => all(Object(read).manifests).map(fromGo),
    },
    config: {
      kind: 'c',
      valid: config,
      ours: (bytes: Buffer): unknown => {
        const read = parseConfig(bytes, 'it');
        const { platform, diffIds, labels } = read;
        return {
          platform,
          diffIds,
          labels,
          ...membersOf(read.config),
        };
      },
      gos: (read: object): unknown => {
        const { os, architecture, variant, rootfs, config: itsConfig } = Object(read);
        return {
          platform: platformOf(os === '' ? 'linux' : os, architecture, variant),
          diffIds: all(rootfs.diff_ids),
          labels: itsConfig.Labels ?? {},
          ...membersOf(itsConfig),
        };
      },
    },
    archive: {
      kind: 'a',
      valid: archive,
      ours: (bytes: Buffer): unknown => parseArchiveManifest(bytes, 'it'),
      gos: (read: object): unknown =>
        all(read).map((image) => ({
          config: Object(image).Config,
          repoTags: all(Object(image).RepoTags),
          layers: all(Object(image).Layers),
        })),
    },
  } as const;

  test.each(Object.entries(kinds))(
    'property: a %s that both accept means the same to both (B.11)',
    async (_, { kind, valid, ours, gos }) => {
      let taken = 0;
      const total = 5 * settings.numRuns;
      await fc.assert(
        fc.asyncProperty(hostile(valid), async (bytes) => {
          let own: unknown;
          if ((await codeOf(() => (own = ours(bytes)))) !== undefined) return;
          const read = await go.ask(kind, bytes);
          if (read === null) return;
          taken += 1;
          expect(own).toEqual(gos(Object(read)));
        }),
        { ...settings, numRuns: total, timeout: 60_000 },
      );
      // Otherwise nothing was compared.
      expect(taken).toBeGreaterThan(total / 20);
    },
    120_000,
  );
});

type Tree = string | { readonly object: readonly (readonly [string, Tree])[] } | { readonly list: readonly Tree[] };

function treeOf(value: unknown): Tree {
  if (Array.isArray(value)) return { list: value.map(treeOf) };
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return { object: Object.entries(value).map(([name, member]) => [JSON.stringify(name), treeOf(member)]) };
}

function textOf(tree: Tree): string {
  if (typeof tree === 'string') return tree;
  if ('list' in tree) return `[${tree.list.map(textOf).join()}]`;
  return `{${tree.object.map(([name, member]) => `${name}:${textOf(member)}`).join()}}`;
}

const knownNames = [
  ...[
    'config',
    'Config',
    'layers',
    'manifests',
    'mediaType',
    'digest',
    'size',
    'urls',
    'annotations',
    'data',
    'platform',
    'os',
  ],
  ...[
    'architecture',
    'variant',
    'rootfs',
    'diff_ids',
    'Labels',
    'Env',
    'Cmd',
    'User',
    'Entrypoint',
    'Volumes',
    'WorkingDir',
  ],
  ...['RepoTags', 'Layers', 'x', 'a', '__proto__', 'constructor'],
];

/** Spellings that Go accepts for a name, and near misses, as they are in a text. */
const spellings: readonly ((name: string) => string)[] = [
  (name) => name,
  (name) => name.toUpperCase(),
  (name) => name.toLowerCase(),
  (name) => name.replace('s', '\u017f').replace('k', '\u212a'),
  (name) => name.replace('i', '\u0131'),
  (name) => `\\u${(name.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}${name.slice(1)}`,
  (name) => `${name}\\u0000`,
  (name) => `${name}\\ud800`,
];
const anyName = fc
  .tuple(fc.constantFrom(...knownNames), fc.constantFrom(...spellings))
  .map(([name, spell]) => `"${spell(name)}"`);
const anyValue: fc.Arbitrary<Tree> = fc.oneof(
  fc.constantFrom(
    ...['null', 'true', '0', '-0', '1.0', '12', '1e1', '9007199254740991', '9007199254740993', '99999999999999999999'],
    ...[
      '""',
      '"x"',
      '"\\ud800"',
      '"\\u0000"',
      '"\u00e4"',
      '"\\u00e4\\ud83d\\ude00"',
      '"linux"',
      '"e30="',
      '[]',
      '{}',
      '[null]',
      '["x"]',
      '{"x":null}',
      '{"x":"y"}',
    ],
    ...digests.map((digest) => `"${digest}"`),
  ),
  fc.constantFrom(manifest.config, layer, config.config, manifest.layers).map(treeOf),
);

interface Change {
  readonly path: readonly number[];
  readonly way: 'add' | 'rename' | 'replace' | 'remove';
  readonly name: string;
  readonly value: Tree;
}

function changed(tree: Tree, { path, ...change }: Change): Tree {
  if (typeof tree === 'string') return change.value;
  const [first = 0, ...rest] = path;
  const items = 'list' in tree ? tree.list.map((item) => ['', item] as const) : tree.object;
  const position = first % (items.length + 1);
  const next = items.flatMap((item, at): readonly (readonly [string, Tree])[] => {
    const [name, value] = item;
    if (at !== position) return [item];
    if (rest.length > 0) return [[name, changed(value, { ...change, path: rest })]];
    switch (change.way) {
      case 'add':
        return [item, [change.name, change.value]];
      case 'rename':
        return [[change.name, value]];
      case 'replace':
        return [[name, change.value]];
      case 'remove':
        return [];
    }
  });
  const grown = position === items.length ? [...items, [change.name, change.value] as const] : next;
  return 'list' in tree ? { list: grown.map(([, value]) => value) } : { object: grown };
}

/** Documents similar to a valid one: with extra, missing, repeated and respelled members at any depth, and with other bytes. */
function hostile(valid: unknown): fc.Arbitrary<Buffer> {
  const change: fc.Arbitrary<Change> = fc.record({
    path: fc.array(fc.nat({ max: 8 }), { minLength: 1, maxLength: 4 }),
    way: fc.constantFrom('add', 'rename', 'replace', 'remove'),
    name: anyName,
    value: anyValue,
  });
  const trees = fc
    .array(change, { minLength: 1, maxLength: 3 })
    .map((changes) => Buffer.from(textOf(changes.reduce(changed, treeOf(valid)))));
  return fc.oneof({ weight: 4, arbitrary: trees }, { weight: 1, arbitrary: mutated(json(valid)) });
}
