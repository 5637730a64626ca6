import { describe, expect, test } from '@jest/globals';
import { HandoverError } from '../../shared/base/errors.ts';
import { canonicalReference, formatReference, parseReference } from '../../shared/image/reference.ts';

// Cases from the tests of the reference parser in github.com/distribution/reference (reference_test.go and
// normalize_test.go of v0.6.0 and later): texts and their parsed form. Docker uses that parser.

const hex64 = '1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a';
const digest = `sha256:${'f'.repeat(64)}`;
const song = 'thisisthesongthatneverendsitgoesonandonandonthisisthesongthatnev';

const familiar = (text: string): string => formatReference(parseReference(text));
const full = (text: string): string => canonicalReference(parseReference(text));

describe('TestParseRepositoryInfo: each way to write a name has the same familiar form and the same full form', () => {
  test.each([
    ['localhost/fooo', 'localhost/fooo', ''],
    ['localhost/fooo/bar', 'localhost/fooo/bar', ''],
    ['fooo/bar', 'docker.io/fooo/bar', 'index.docker.io/fooo/bar'],
    ['ubuntu', 'docker.io/library/ubuntu', 'library/ubuntu'],
    ['nonlibrary/ubuntu', 'docker.io/nonlibrary/ubuntu', ''],
    ['other/library', 'docker.io/other/library', ''],
    ['127.0.0.1:8000/private/moonbase', '127.0.0.1:8000/private/moonbase', ''],
    ['127.0.0.1:8000/privatebase', '127.0.0.1:8000/privatebase', ''],
    ['example.com/private/moonbase', 'example.com/private/moonbase', ''],
    ['example.com/privatebase', 'example.com/privatebase', ''],
    ['example.com:8000/private/moonbase', 'example.com:8000/private/moonbase', ''],
    ['example.com:8000/privatebasee', 'example.com:8000/privatebasee', ''],
    ['ubuntu-12.04-base', 'docker.io/library/ubuntu-12.04-base', 'index.docker.io/library/ubuntu-12.04-base'],
    ['foo', 'docker.io/library/foo', 'docker.io/foo'],
    ['library/foo/bar', 'docker.io/library/foo/bar', ''],
    ['store/foo/bar', 'docker.io/store/foo/bar', ''],
  ])('%s has the full form %s (also %s)', (short, long, ambiguous) => {
    for (const text of [short, long, ambiguous].filter((one) => one !== '')) {
      expect(familiar(text)).toBe(short);
      expect(full(text)).toBe(long);
    }
  });

  test('a first part in upper case is an owner, not a registry; it is changed to lower case with a notice (S2.4)', () => {
    for (const text of ['LOCALDOMAIN/fooo/bar', 'Foo/bar', 'FOO/bar']) {
      expect(parseReference(text)).toMatchObject({ repository: text.toLowerCase(), loweredFrom: text });
    }
  });
});

describe('TestNormalizedSplitHostname, TestParseAnyReference, TestParseDockerRef: full forms', () => {
  test.each([
    ['test.com/foo', 'test.com/foo'],
    ['test_com/foo', 'docker.io/test_com/foo'],
    ['docker/migrator', 'docker.io/docker/migrator'],
    ['test.com:8080/foo', 'test.com:8080/foo'],
    ['test-com:8080/foo', 'test-com:8080/foo'],
    ['xn--n3h.com/foo', 'xn--n3h.com/foo'],
    ['xn--n3h.com:18080/foo', 'xn--n3h.com:18080/foo'],
    ['docker.io/foo', 'docker.io/library/foo'],
    ['docker.io/library/foo/bar', 'docker.io/library/foo/bar'],
    ['redis:latest', 'docker.io/library/redis:latest'],
    ['docker.io/library/redis:latest', 'docker.io/library/redis:latest'],
    [`redis@${digest}`, `docker.io/library/redis@${digest}`],
    [`docker.io/library/redis@${digest}`, `docker.io/library/redis@${digest}`],
    ['dmcgowan/myapp:latest', 'docker.io/dmcgowan/myapp:latest'],
    [`docker.io/dmcgowan/myapp@${digest}`, `docker.io/dmcgowan/myapp@${digest}`],
    [hex64.slice(1), `docker.io/library/${hex64.slice(1)}`],
    ['dbcc1', 'docker.io/library/dbcc1'],
    ['library/busybox:latest', 'docker.io/library/busybox:latest'],
    ['docker.io/busybox:latest', 'docker.io/library/busybox:latest'],
    ['gcr.io/library/busybox', 'gcr.io/library/busybox'],
    [`busybox:latest@${digest}`, `docker.io/library/busybox:latest@${digest}`],
  ])('%s has the full form %s', (text, long) => {
    expect(full(text)).toBe(long);
    expect(full(long)).toBe(long);
  });
});

describe('TestReferenceParse: repository, tag and digest', () => {
  test.each([
    ['test_com', 'test_com', undefined, undefined],
    ['test.com:tag', 'test.com', 'tag', undefined],
    ['test.com:5000', 'test.com', '5000', undefined],
    ['test.com/repo:tag', 'test.com/repo', 'tag', undefined],
    ['test:5000/repo', 'test:5000/repo', undefined, undefined],
    ['test:5000/repo:tag', 'test:5000/repo', 'tag', undefined],
    [`test:5000/repo@${digest}`, 'test:5000/repo', undefined, digest],
    [`test:5000/repo:tag@${digest}`, 'test:5000/repo', 'tag', digest],
    ['lowercase:Uppercase', 'lowercase', 'Uppercase', undefined],
    [`${'a/'.repeat(127)}a:tag-puts-this-over-max`, `${'a/'.repeat(127)}a`, 'tag-puts-this-over-max', undefined],
    ['sub-dom1.foo.com/bar/baz/quux', 'sub-dom1.foo.com/bar/baz/quux', undefined, undefined],
    ['sub-dom1.foo.com/bar/baz/quux:some-long-tag', 'sub-dom1.foo.com/bar/baz/quux', 'some-long-tag', undefined],
    [
      'b.gcr.io/test.example.com/my-app:test.example.com',
      'b.gcr.io/test.example.com/my-app',
      'test.example.com',
      undefined,
    ],
    ['xn--n3h.com/myimage:xn--n3h.com', 'xn--n3h.com/myimage', 'xn--n3h.com', undefined],
    [`xn--7o8h.com/myimage:xn--7o8h.com@${digest}`, 'xn--7o8h.com/myimage', 'xn--7o8h.com', digest],
    ['foo_bar.com:8080', 'foo_bar.com', '8080', undefined],
    ['foo/foo_bar.com:8080', 'foo/foo_bar.com', '8080', undefined],
    ['192.168.1.1', '192.168.1.1', undefined, undefined],
    ['192.168.1.1:tag', '192.168.1.1', 'tag', undefined],
    ['192.168.1.1:5000', '192.168.1.1', '5000', undefined],
    ['192.168.1.1/repo', '192.168.1.1/repo', undefined, undefined],
    ['192.168.1.1:5000/repo', '192.168.1.1:5000/repo', undefined, undefined],
    ['192.168.1.1:5000/repo:5050', '192.168.1.1:5000/repo', '5050', undefined],
    ['[2001:db8::1]/repo', '[2001:db8::1]/repo', undefined, undefined],
    ['[2001:db8:1:2:3:4:5:6]/repo:tag', '[2001:db8:1:2:3:4:5:6]/repo', 'tag', undefined],
    ['[2001:db8::1]:5000/repo', '[2001:db8::1]:5000/repo', undefined, undefined],
    [`[2001:db8::1]:5000/repo:tag@${digest}`, '[2001:db8::1]:5000/repo', 'tag', digest],
    ['[2001:db8::]:5000/repo', '[2001:db8::]:5000/repo', undefined, undefined],
    ['[::1]:5000/repo', '[::1]:5000/repo', undefined, undefined],
    [`example.com/${'a'.repeat(255)}:tag`, `example.com/${'a'.repeat(255)}`, 'tag', undefined],
  ])('%s is parsed', (text, repository, tag, expectedDigest) => {
    expect(parseReference(text)).toEqual({
      repository,
      ...(tag === undefined ? {} : { tag }),
      ...(expectedDigest === undefined ? {} : { digest: expectedDigest }),
    });
  });

  test('upper case in a repository is an error in the original, but is changed to lower case here (S2.4)', () => {
    expect(familiar('Uppercase:tag')).toBe('uppercase:tag');
    expect(familiar('test:5000/Uppercase/lowercase:tag')).toBe('test:5000/uppercase/lowercase:tag');
  });
});

describe('TestValidateReferenceName, TestValidateRemoteName: valid names', () => {
  test.each([
    ...['docker/docker', 'library/debian', 'debian', 'localhost/library/debian', 'localhost/debian'],
    ...['docker.io/docker/docker', 'docker.io/library/debian', 'docker.io/debian', 'index.docker.io/debian'],
    ...['127.0.0.1:5000/docker/docker', '127.0.0.1:5000/library/debian', '127.0.0.1:5000/debian'],
    ...['192.168.0.1', '192.168.0.1:80', '192.168.0.1:8/debian', '192.168.0.2:25000/debian', song],
    ...['[fc00::1]:5000/docker', '[fc00::1]:5000/docker/docker', '[fc00:1:2:3:4:5:6:7]:5000/library/debian'],
    ...['docker-rules/docker', 'docker---rules/docker', 'doc/docker', 'd/docker', 'jess/t', 'dock__er/docker'],
    `docker.io/${hex64}`,
  ])('%s is valid', (text) => {
    expect(parseReference(familiar(text))).toEqual(parseReference(text));
    expect(full(familiar(text))).toBe(full(text));
  });
});

describe('invalid references are rejected (S0.7)', () => {
  test.each([
    ...['', ':justtag', `@${digest}`, 'repo@sha256:ffffffffffffffffffffffffffffffffff'],
    ...[`validname@invaliddigest:${'f'.repeat(64)}`, `validname@sha512:${'f'.repeat(128)}`, 'aa/asdf$$^/aa'],
    ...[`domain/${'a'.repeat(256)}:tag`, '[2001:db8::1]', '[2001:db8::1]:5000', '[2001:db8::1]:tag'],
    ...['[fe80::1%eth0]:5000/repo', '[fe80::1%@invalidzone]:5000/repo', 'https://github.com/docker/docker'],
    ...['-docker', '-docker/docker', '-docker.io/docker/docker', 'docker///docker', 'docker.io/docker///docker'],
    ...['[fc00::1]', '[fc00::1]:5000', 'fc00::1:5000/debian', '[fe80::1%eth0]:5000/debian'],
    ...['[2001:db8:3:4::192.0.2.33]:5000/debian', hex64, `sha256:${hex64}`, 'docker-/docker', '-docker-/docker'],
    ...['____/____', '_docker/_docker', 'dock..er/docker', 'dock_.er/docker', 'dock-.er/docker', 'docker/', '-foo'],
    ...['a'.repeat(248), 'busybox:-foo', 'busybox@foo', `${'this_is_not_a_valid_namespace_'.repeat(9)}/docker`],
  ])('%s is rejected', (text) => {
    expect(() => parseReference(text)).toThrow(HandoverError);
  });
});

describe('an image ID is not a reference', () => {
  test.each([`SHA256:${hex64}`, `library/sha256:${hex64}`, 'docker.io/library/sha256:a', 'sha256:latest', 'sha256'])(
    '%s is rejected because an engine would read it as an image ID',
    (text) => {
      expect(() => parseReference(text)).toThrow('it would be an image ID, not a reference');
    },
  );

  test.each([`sha256:${hex64}`, `sha256:${hex64.slice(0, 12)}`, hex64])(
    '%s is rejected with an error that calls it an image ID',
    (text) => {
      expect(() => parseReference(text)).toThrow('it is an image ID, not a reference');
    },
  );
});
