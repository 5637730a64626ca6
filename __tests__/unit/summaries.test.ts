import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { ExportResult } from '../../export-image/export-image.ts';
import { exportSummary } from '../../export-image/summary.ts';
import { joinedSummary } from '../../joined/summary.ts';
import type { LoadResult } from '../../load-image/load-image.ts';
import { imagesSummary, loadSummary } from '../../load-image/summary.ts';
import type { PublishResult } from '../../publish-image/publish-image.ts';
import { publishSummary } from '../../publish-image/summary.ts';
import { HandoverError } from '../../shared/base/errors.ts';
import type { Timeline } from '../../shared/base/timeline.ts';
import type { Digest } from '../../shared/image/digest.ts';
import type { HandoverRecord } from '../../shared/image/record.ts';
import { failureSummary } from '../../shared/runner/run.ts';
import { rendered } from '../fixtures/github-markdown.ts';

// Puts every text that a third party may choose into the summary of every action, and renders it like GitHub. Compared with
// harmless words, the text adds no element except code. It adds nothing that GitHub turns into a link, a picture or a mention.

const digest: Digest = `sha256:${'0'.repeat(64)}`;
const nowhere: Timeline = {
  began: 1_000_000,
  spans: () => [{ name: 'Load', startMs: 0, endMs: 10 }],
  measure: (_, work) => work(),
};

function recordOf(word: string): HandoverRecord {
  return {
    references: [{ repository: word, tag: word }],
    platform: { os: word, architecture: word, variant: word },
    configDigest: digest,
    manifestDigests: [digest],
    diffIds: [digest],
    labels: {},
    layers: [{ digest, size: 1, mediaType: word }],
    tarballName: word,
    tarballSize: 1,
    tarballDigest: digest,
    tarballCompression: 'none',
    producer: { repository: word, runId: word, runAttempt: 1, commit: word, jobKey: word },
    times: { began: 890_000, started: 900_000, built: 950_000, ready: 960_000 },
  };
}

const artifactOf = (word: string, run = false) => ({
  ...{ id: 1, name: word, size: 1 },
  ...(run ? { run: { id: 7, url: `https://example.com/${word}` } } : {}),
});

function loadedOf(word: string, more: Partial<LoadResult> = {}): LoadResult {
  const platform = { os: word, architecture: word };
  return {
    reference: word,
    image: {
      ...{ imageId: word, repoTags: [word], platform, diffIds: [digest], labels: {}, size: 1, config: {} },
    },
    identity: { platform, diffIds: [], labels: {}, config: {}, configDigest: digest, manifestDigest: digest },
    source: 'artifact',
    artifact: artifactOf(word),
    record: recordOf(word),
    size: 1,
    loaded: true,
    nodes: [word],
    layoutPath: word,
    further: [],
    ...more,
  };
}

function exportedOf(word: string): ExportResult {
  return {
    record: recordOf(word),
    artifact: artifactOf(word),
    tarballPath: word,
    steps: [{ name: word, cached: false }],
    push: { kind: 'failed', error: new HandoverError('registry-failed', `The push failed: ${word}`, word) },
  };
}

const published = (word: string): PublishResult => ({
  digest,
  references: [{ repository: word, tag: word }],
  images: [
    {
      artifact: artifactOf(word, true),
      platform: { os: word, architecture: word },
      contents: { manifestDigest: digest, configDigest: digest },
    },
  ],
  isNew: true,
  bytes: { there: 1, mounted: 1, pushed: 1 },
});

const mapped = (word: string) => ({
  ...{ name: word, artifact: artifactOf(word), reference: word, configDigest: word, manifestDigest: word },
  ...{ pushedReference: word, platform: word, size: 1 },
});

const summaries: Readonly<Record<string, (word: string) => string>> = {
  'of an export': (word) => String(exportSummary(exportedOf(word), nowhere.spans())),
  'of a load': (word) => String(loadSummary(loadedOf(word), nowhere)),
  'of a load from another run': (word) =>
    String(loadSummary(loadedOf(word, { artifact: artifactOf(word, true) }), nowhere)),
  'of a fallback': (word) =>
    String(loadSummary(loadedOf(word, { fallback: { reference: word, reason: `There is no "${word}".` } }), nowhere)),
  'of several loads': (word) =>
    String(
      imagesSummary(
        {
          images: [mapped(word), mapped(word)],
          loaded: [loadedOf(word), loadedOf(word)],
          digests: artifactOf(word),
          removed: [word],
        },
        nowhere,
      ),
    ),
  'of a publication': (word) => String(publishSummary(published(word), nowhere.spans())),
  'of the joined action': (word) =>
    String(
      joinedSummary(
        { exported: exportedOf(word), loaded: loadedOf(word), other: { kind: 'unknown', why: word } },
        word,
        nowhere,
      ),
    ),
  'of a failure': (word) =>
    String(failureSummary('load-image', new HandoverError('load-failed', `It says: ${word}`, `Read \`${word}\`.`))),
  'of a defect': (word) => String(failureSummary('load-image', new Error(word))),
};

const hostile = [
  '[a](https://evil.example)',
  '![a](https://evil.example/x.png)',
  '<img src=x>',
  '<!-- a',
  '<details>',
  '</details></td></table>',
  'a|b',
  'a\\|b',
  'a\\\\|b',
  '\\',
  '`',
  '``` a',
  'a`b``c```d',
  'a ` | ` b',
  '**a** __b__ ~~c~~',
  '*a*_b_',
  'https://evil.example',
  'HTTP://EVIL.EXAMPLE/?a=1',
  'see(https://evil.example)',
  'www.evil.example',
  'a@evil.example',
  'mailto:a@evil.example',
  'xmpp:a@evil.example',
  '@somebody',
  '(@some/team)',
  '#1',
  'a/b#1',
  'GH-1',
  'deadbeefdeadbeefdeadbeefdeadbeefdeadbeef',
  ':tada:',
  '$a$ $`b`$',
  '[^1]',
  '[a]: https://evil.example',
  'a\n\n# b',
  'a\n- b\n- [x] c',
  'a\r\n\r\n    b',
  'a\n===',
  'a\n---',
  '| a |\n| --- |\n| b |',
  '- a',
  '+ a',
  '1. a',
  '1) a',
  '# a',
  '> a',
  '---',
  '&lt;img src=x&gt; &#60;b&#62;',
  '&#64;somebody',
  '```\n\n# a',
  '    ```\n# a',
  '%%{init: {"securityLevel": "loose"}}%%',
  'a\nclick t0 href "https://evil.example"',
  'a\u2028# b',
  'a\u202etxt\u200b@somebody',
] as const;

/** Text that GitHub turns into a link, a picture or a mention, at any position. */
const lively =
  /@[a-z0-9]|#\d|\bGH-\d|:\/\/|www\.|:[a-z0-9_+-]+:|\b[0-9a-f]{40}\b|\$.*\$|[\u202a-\u202e\u2066-\u2069\u200b]/i;

function withoutCode(elements: readonly string[]): readonly string[] {
  return elements.filter((element) => element !== 'code').map((element) => element.replace(/example\.com\/[^"]*/, ''));
}

describe('the summary', () => {
  describe.each(Object.entries(summaries))('%s', (_, summary) => {
    const ours = withoutCode(rendered(summary('word')).elements);

    test.each(hostile)('shows %j as text', (word) => {
      const { elements, text } = rendered(summary(word));
      expect(withoutCode(elements)).toEqual(ours);
      expect(text).not.toMatch(lively);
    });

    test('shows any combination of these as text', () => {
      fc.assert(
        fc.property(fc.array(fc.constantFrom(...hostile, ' ', 'a', '.'), { minLength: 1, maxLength: 6 }), (parts) => {
          const word = parts.join('');
          // A text of only white space creates no paragraph.
          fc.pre(/[^\p{C}\s]/u.test(word));
          const { elements, text } = rendered(summary(word));
          expect(withoutCode(elements)).toEqual(ours);
          expect(text).not.toMatch(lively);
        }),
        { numRuns: 300 },
      );
    });
  });
});
