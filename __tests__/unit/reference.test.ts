import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseMetadataTags } from '../../shared/image/tags.ts';
import { nearMisses } from '../../export-image/source/from-engine.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import { requireArtifactName } from '../../shared/image/artifact-name.ts';
import { parseDigest } from '../../shared/image/digest.ts';
import { formatPlatform, parsePlatform, platformOf, runsOn, samePlatform } from '../../shared/image/platform.ts';
import {
  canonicalReference,
  formatReference,
  isImageId,
  parsePinnedReference,
  parseReference,
  parseTaggedReference,
  registryHost,
  registryOf,
  repeatedName,
} from '../../shared/image/reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;
const bare = { tag: undefined, digest: undefined, loweredFrom: undefined };

describe('references', () => {
  test.each([
    ['charon:local', 'charon:local', 'docker.io/library/charon:local'],
    ['charon', 'charon', 'docker.io/library/charon'],
    ['org/charon:1', 'org/charon:1', 'docker.io/org/charon:1'],
    ['docker.io/library/charon:1', 'charon:1', 'docker.io/library/charon:1'],
    ['index.docker.io/org/charon:1', 'org/charon:1', 'docker.io/org/charon:1'],
    ['localhost:5000/charon', 'localhost:5000/charon', 'localhost:5000/charon'],
    ['localhost/charon:x', 'localhost/charon:x', 'localhost/charon:x'],
    ['[::1]:5000/a/b:t', '[::1]:5000/a/b:t', '[::1]:5000/a/b:t'],
    ['ghcr.io/org/charon:A_b.C-d', 'ghcr.io/org/charon:A_b.C-d', 'ghcr.io/org/charon:A_b.C-d'],
    [`ghcr.io/org/charon:1@${digest}`, `ghcr.io/org/charon:1@${digest}`, `ghcr.io/org/charon:1@${digest}`],
    ['a/b__c/d-e.f', 'a/b__c/d-e.f', 'docker.io/a/b__c/d-e.f'],
    ['  charon:local \n', 'charon:local', 'docker.io/library/charon:local'],
  ])('%j is %s, in full %s', (text, short, full) => {
    expect(formatReference(parseReference(text))).toBe(short);
    expect(canonicalReference(parseReference(text))).toBe(full);
  });

  test('upper case in the repository becomes lower case, and the change is recorded; a tag keeps its case (S2.4)', () => {
    expect(parseReference('ghcr.io/Wikid82/Charon:PR-1')).toEqual({
      repository: 'ghcr.io/wikid82/charon',
      tag: 'PR-1',
      loweredFrom: 'ghcr.io/Wikid82/Charon:PR-1',
    });
    expect(formatReference(parseReference('Wikid82/charon:x'))).toBe('wikid82/charon:x');
    expect(parseReference('charon')).toStrictEqual({ repository: 'charon', ...bare });
  });

  test.each([
    ['', 'it is empty'],
    [' ', 'it is empty'],
    [':local', '"" is not a repository'],
    [`@${digest}`, '"" is not a repository'],
    ['charon:', '"" is not a tag: at most 128 of letters, digits, "_", "." and "-"'],
    ['charon:local:twice', '"charon:local" is not a repository'],
    ['charon:-x', '"-x" is not a tag'],
    [`charon:${'x'.repeat(129)}`, 'x" is not a tag'],
    ['charon@sha256:123', '"sha256:123" is not a digest of the form sha256:<64 hex digits>'],
    ['char on', '"char on" is not a repository'],
    ['a//b', '"a//b" is not a repository'],
    ['/charon', '"/charon" is not a repository'],
    ['charon/', '"charon/" is not a repository'],
    ['https://example.com/x', '"https:" is not a registry host'],
    ['-charon', '"-charon" is not a repository'],
    ['ghcr.io/-charon', '"-charon" is not a repository'],
    ['char!on', '"char!on" is not a repository'],
    ['a..b/c', '"a..b" is not a registry host'],
    ['a'.repeat(256), 'its repository is longer than 255 characters'],
    ['f'.repeat(64), 'it is an image ID, not a reference'],
    [`sha256:${'f'.repeat(12)}`, 'it is an image ID, not a reference'],
    ['sha256:latest', 'it would be an image ID, not a reference'],
    ['ghcr.io/org/charon:x@md5:abc', '"md5:abc" is not a digest'],
    ['exa_mple.com:5000/x', '"exa_mple.com:5000" is not a registry host'],
  ])('%j is refused with its text in the message, because %s (S0.7)', (text, why) => {
    expect(() => parseReference(text)).toThrow(HandoverError);
    expect(() => parseReference(text)).toThrow(JSON.stringify(text.trim().slice(0, 20)).slice(0, -1));
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({
        message: expect.stringContaining(why),
        hint: 'Give a reference such as charon:local or ghcr.io/org/charon:1.2.3.',
      }),
    );
  });

  test('a repository has at most 255 characters without its registry, and with library/ on Docker Hub', () => {
    for (const longest of ['a'.repeat(247), `a/${'b'.repeat(253)}`, `ghcr.io/${'a'.repeat(255)}`]) {
      expect(parseReference(longest)).toStrictEqual({ repository: longest, ...bare });
      expect(() => parseReference(`${longest}a`)).toThrow('longer than 255 characters');
    }
  });

  test('library/ and docker.io/ in another registry, and 65 hex digits, are part of the name', () => {
    for (const text of ['ghcr.io/library/x', 'ghcr.io/docker.io/x', 'f'.repeat(65), `library/${'f'.repeat(64)}`])
      expect(formatReference(parseReference(text))).toBe(text);
  });

  test.each([
    ['0123456789ab', true],
    ['0123456789a', false],
    ['f'.repeat(64), true],
    ['f'.repeat(65), false],
    [`sha256:${'f'.repeat(64)}`, true],
    ['sha256:latest', false],
    ['charon:0123456789ab', false],
    ['0123456789ab:1', false],
  ])('%s can only be an image ID: %s', (text, expected) => {
    expect(isImageId(text)).toBe(expected);
  });

  test.each([
    ['charon', undefined],
    ['org/charon', undefined],
    ['a.b', undefined],
    ['localhost', undefined],
    ['localhost/charon', 'localhost'],
    ['ghcr.io/org/charon', 'ghcr.io'],
    ['host:5000/charon', 'host:5000'],
  ])('the registry of %s is %s, else Docker Hub', (repository, registry) => {
    expect(registryOf(repository)).toBe(registry);
    expect(registryHost(repository)).toBe(registry ?? 'docker.io');
  });

  test('the name that two references share is returned', () => {
    const references = (...texts: readonly string[]) => texts.map((text) => parseReference(text));
    expect(repeatedName(references('a:1', 'b:1', 'docker.io/library/a:1'))).toBe('a:1');
    expect(repeatedName(references('a:1', 'a:2', 'b'))).toBeUndefined();
  });

  test('a pinned reference needs a digest and loses its tag (S3.4)', () => {
    expect(parsePinnedReference(`ghcr.io/org/charon:1@${digest}`)).toStrictEqual({
      repository: 'ghcr.io/org/charon',
      digest,
    });
    expect(() => parsePinnedReference('charon:1')).toThrow(
      expect.objectContaining({
        code: 'invalid-input',
        message: '"charon:1" has no digest: the image of a tag can change between two jobs.',
        hint: expect.stringContaining('pushed-reference'),
      }),
    );
  });

  test('property: each accepted reference is accepted again in its own form, and is the same', () => {
    const component = fc.stringMatching(/^[a-z0-9]{1,8}([_-][a-z0-9]{1,4}){0,2}$/);
    const host = fc.constantFrom('', 'ghcr.io/', 'localhost:5000/', 'docker.io/', 'docker.io/library/');
    const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/), { nil: undefined });
    fc.assert(
      fc.property(host, fc.array(component, { minLength: 1, maxLength: 3 }), tag, (prefix, path, suffix) => {
        const parsed = parseReference(`${prefix}${path.join('/')}${suffix === undefined ? '' : `:${suffix}`}`);
        expect(parseReference(formatReference(parsed))).toEqual(parsed);
        expect(formatReference(parseReference(canonicalReference(parsed)))).toBe(formatReference(parsed));
        expect(parsed.tag).toBe(suffix);
      }),
    );
  });

  test('property: any text is either parsed or refused as invalid-input', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          expect(parseReference(text).repository).not.toBe('');
        } catch (error) {
          expect(error).toMatchObject({ code: 'invalid-input' });
        }
      }),
    );
  });

  test('a tagged reference gets the tag latest, and no digest', () => {
    expect(parseTaggedReference('charon')).toEqual({ repository: 'charon', tag: 'latest' });
    expect(() => parseTaggedReference(`charon@${digest}`)).toThrow('stored under a digest');
  });
});

describe('metadata output (C.5)', () => {
  test.each([
    ['one line', 'ghcr.io/a/b:1'],
    ['several lines, some of them empty', '\n\r\n ghcr.io/a/b:1 \r\n\nghcr.io/a/b:2\n'],
    ['json', JSON.stringify({ tags: ['ghcr.io/a/b:1', 'ghcr.io/a/b:2'], labels: {} })],
  ])('%s: the first tag is the first choice (S1.6, S2.1)', (_, text) => {
    expect(formatReference(parseMetadataTags(text)[0])).toBe('ghcr.io/a/b:1');
  });

  test.each(['', ' \n ', '{}', '{"tags":[]}', '{"tags":""}'])(
    '%j is refused, and the error shows it (S2.2)',
    (text) => {
      expect(() => parseMetadataTags(text)).toThrow(`received "${text.trim().slice(0, 5)}`);
    },
  );
});

describe('platforms', () => {
  test.each([
    ['linux/amd64', 'linux/amd64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm/v7', 'linux/arm/v7'],
    ['linux/amd64/v1', 'linux/amd64'],
    ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/amd64/v8', 'linux/amd64/v8'],
    ['linux/arm64/v1', 'linux/arm64/v1'],
    ['linux/arm64/v9.2', 'linux/arm64/v9.2'],
    ['linux/x86_64', 'linux/amd64'],
    ['linux/x64', 'linux/amd64'],
    ['linux/aarch64', 'linux/arm64'],
    ['linux/armv7l', 'linux/arm'],
    ['linux/i386', 'linux/386'],
    [' linux/s390x\n', 'linux/s390x'],
  ])('%s is %s', (text, normal) => {
    expect(formatPlatform(parsePlatform(text))).toBe(normal);
  });

  test.each(['', 'amd64', 'linux/amd64,linux/arm64', 'linux/amd64/v1/x', 'linux / amd64', 'my linux/amd64'])(
    '%j is refused',
    (text) => {
      expect(() => parsePlatform(text)).toThrow(
        expect.objectContaining({
          code: 'invalid-input',
          message: `"${text}" is not one platform of the form os/arch[/variant].`,
          hint: 'Hand over one platform per artifact, such as linux/amd64 or linux/arm64.',
        }),
      );
    },
  );

  test('default variants count as equal, other variants don’t', () => {
    expect(samePlatform(platformOf('linux', 'arm64', 'v8'), parsePlatform('linux/arm64'))).toBe(true);
    expect(samePlatform(platformOf('linux', 'arm', 'v6'), parsePlatform('linux/arm/v7'))).toBe(false);
    expect(samePlatform({ os: 'linux', architecture: 'x86_64', variant: 'v1' }, parsePlatform('linux/amd64'))).toBe(
      true,
    );
    expect(platformOf('linux', 'arm', 'v7')).toStrictEqual({ os: 'linux', architecture: 'arm', variant: 'v7' });
    expect(parsePlatform('linux/s390x')).toStrictEqual({ os: 'linux', architecture: 's390x', variant: undefined });
    expect(runsOn(parsePlatform('linux/amd64/v3'), platformOf('linux', 'x86_64'))).toBe(true);
    expect(runsOn(parsePlatform('linux/arm64'), platformOf('linux', 'x86_64'))).toBe(false);
    expect(runsOn(parsePlatform('windows/amd64'), platformOf('linux', 'x86_64'))).toBe(false);
    expect(samePlatform(parsePlatform('windows/amd64'), parsePlatform('linux/amd64'))).toBe(false);
  });

  test('an unknown architecture matches every architecture of the same system', () => {
    const untold = platformOf('linux', '', '');
    expect(untold).toStrictEqual({ os: 'linux', architecture: 'unknown', variant: undefined });
    for (const [os, fits] of [
      ['linux', true],
      ['windows', false],
    ] as const) {
      const told = platformOf(os, 'arm64');
      expect([samePlatform(untold, told), samePlatform(told, untold), runsOn(untold, told)]).toEqual([
        fits,
        fits,
        fits,
      ]);
    }
    expect(runsOn(platformOf('linux', 'arm64'), untold)).toBe(false);
  });
});

describe('other small parsers', () => {
  test('a digest is accepted with or without the algorithm, in lower case only', () => {
    expect(parseDigest('a'.repeat(64))).toBe(digest);
    expect(parseDigest(digest)).toBe(digest);
    expect(parseDigest('A'.repeat(64))).toBeUndefined();
    expect(parseDigest('md5:abc')).toBeUndefined();
  });

  test('similar references are those of the same repository with another tag or case, or otherwise those with the same last name (S2.3)', () => {
    const local = ['charon:pr-2', 'ghcr.io/org/charon:x', 'other:1'];
    expect(nearMisses('charon:pr-1', local)).toEqual(['charon:pr-2']);
    expect(nearMisses('Charon:PR-2', local)).toEqual(['charon:pr-2']);
    expect(nearMisses('localhost:5000/charon:1', local)).toEqual(['charon:pr-2', 'ghcr.io/org/charon:x']);
    expect(nearMisses('nothing:1', local)).toEqual([]);
  });

  test.each(['a"b', 'a:b', 'a<b', 'a|b', 'a*b', 'a?b', 'a\\b', 'a/b', 'a\nb', '', ' '])(
    'artifact name %j is refused',
    (name) => {
      expect(() => requireArtifactName(name)).toThrow('is not a valid name of an artifact');
    },
  );
});
