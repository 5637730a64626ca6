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
  parseReference,
  parseTaggedReference,
} from '../../shared/image/reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;

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

  test('upper case in the repository is lowered and remembered; a tag keeps its case (S2.4)', () => {
    expect(parseReference('ghcr.io/Wikid82/Charon:PR-1')).toEqual({
      repository: 'ghcr.io/wikid82/charon',
      tag: 'PR-1',
      loweredFrom: 'ghcr.io/Wikid82/Charon:PR-1',
    });
    expect(formatReference(parseReference('Wikid82/charon:x'))).toBe('wikid82/charon:x');
  });

  test.each([
    '',
    ' ',
    ':local',
    'charon:',
    'charon:local:twice',
    'charon:-x',
    `charon:${'x'.repeat(129)}`,
    'charon@sha256:123',
    'char on',
    'a//b',
    '/charon',
    'charon/',
    'https://example.com/x',
    '-charon',
    'char!on',
    'a..b/c',
    'a'.repeat(256),
    'f'.repeat(64),
    'ghcr.io/org/charon:x@md5:abc',
    'exa_mple.com:5000/x',
  ])('%j is refused with its text in the message (S0.7)', (text) => {
    expect(() => parseReference(text)).toThrow(HandoverError);
    expect(() => parseReference(text)).toThrow(JSON.stringify(text.trim().slice(0, 20)).slice(0, -1));
  });

  test('property: whatever is accepted, is accepted again in its own form, and is the same', () => {
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

  test('a tagged reference gets latest, and no digest', () => {
    expect(parseTaggedReference('charon')).toEqual({ repository: 'charon', tag: 'latest' });
    expect(() => parseTaggedReference(`charon@${digest}`)).toThrow('stored under a digest');
  });
});

describe('metadata output (C.5)', () => {
  test.each([
    ['one line', 'ghcr.io/a/b:1'],
    ['several lines with empty ones', '\n\r\n ghcr.io/a/b:1 \r\n\nghcr.io/a/b:2\n'],
    ['json', JSON.stringify({ tags: ['ghcr.io/a/b:1', 'ghcr.io/a/b:2'], labels: {} })],
  ])('%s: the first tag is the first choice (S1.6, S2.1)', (_, text) => {
    expect(formatReference(parseMetadataTags(text)[0])).toBe('ghcr.io/a/b:1');
  });

  test.each(['', ' \n ', '{}', '{"tags":[]}', '{"tags":""}'])('%j is refused, and shown (S2.2)', (text) => {
    expect(() => parseMetadataTags(text)).toThrow(`received "${text.trim().slice(0, 5)}`);
  });
});

describe('platforms', () => {
  test.each([
    ['linux/amd64', 'linux/amd64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm/v7', 'linux/arm/v7'],
    ['linux/x86_64', 'linux/amd64'],
    ['linux/aarch64', 'linux/arm64'],
  ])('%s is %s', (text, normal) => {
    expect(formatPlatform(parsePlatform(text))).toBe(normal);
  });

  test.each(['', 'amd64', 'linux/amd64,linux/arm64', 'linux/amd64/v1/x', 'linux / amd64'])('%j is refused', (text) => {
    expect(() => parsePlatform(text)).toThrow('not one platform');
  });

  test('the default variants are no difference; others are', () => {
    expect(samePlatform(platformOf('linux', 'arm64', 'v8'), parsePlatform('linux/arm64'))).toBe(true);
    expect(samePlatform(platformOf('linux', 'arm', 'v6'), parsePlatform('linux/arm/v7'))).toBe(false);
    expect(runsOn(parsePlatform('linux/amd64/v3'), platformOf('linux', 'x86_64'))).toBe(true);
    expect(runsOn(parsePlatform('linux/arm64'), platformOf('linux', 'x86_64'))).toBe(false);
  });
});

describe('small things', () => {
  test('digests: with or without the algorithm, in lower case only', () => {
    expect(parseDigest('a'.repeat(64))).toBe(digest);
    expect(parseDigest(digest)).toBe(digest);
    expect(parseDigest('A'.repeat(64))).toBeUndefined();
    expect(parseDigest('md5:abc')).toBeUndefined();
  });

  test('near misses: same repository, other tag or case; else the same last name (S2.3)', () => {
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
