import { describe, expect, test } from '@jest/globals';
import { eventFacts } from '../fixtures/events.ts';
import { buildInputs, exportFacts, exportInputs } from '../fixtures/export-inputs.ts';
import type { ExportInputs } from '../../export-image/inputs.ts';
import { type ExportFacts, planExport } from '../../export-image/plan/plan.ts';
import { formatReference } from '../../shared/image/reference.ts';

const plan = (change: Partial<ExportInputs>, facts: Partial<ExportFacts> = {}) =>
  planExport({ ...exportInputs, ...change }, { ...exportFacts, ...facts });
const tagsOf = (change: Partial<ExportInputs>, facts: Partial<ExportFacts> = {}): readonly string[] =>
  plan(change, facts).tags.map(formatReference);
const refused = (message: string): unknown =>
  expect.objectContaining({ code: 'invalid-input', message: expect.stringContaining(message) });
const event = eventFacts('push-default-branch');
const auto = { tags: 'auto', repository: 'ghcr.io/Wikid82/charon' };
const json = '{"tags":["ghcr.io/o/c:1","ghcr.io/o/c:sha-1"],"tag-names":["1","sha-1"],"labels":{},"version":"1"}';

describe('tags', () => {
  test.each([
    ['no tags', {}, []],
    ['an output of several lines (C.5)', { tags: '\nghcr.io/o/c:1\r\n\n ghcr.io/o/c:sha-1 ' }, undefined],
    ['an output with commas (sep-tags) (C.5)', { tags: 'ghcr.io/o/c:1,ghcr.io/o/c:sha-1' }, undefined],
    ['the json output (C.5)', { tags: json }, undefined],
    ['bare tags (metadata-action without images)', { tags: '1\nsha-1', repository: 'ghcr.io/o/c' }, undefined],
    ['the same tag twice', { tags: 'ghcr.io/o/c:1\nghcr.io/o/c:sha-1\nghcr.io/O/c:1' }, undefined],
    ['tags that include the image’s own reference', { image: 'a:1', tags: 'a:1\na:2' }, ['a:2']],
    ['a reference without a tag, as docker reads it', { tags: 'ghcr.io/o/c' }, ['ghcr.io/o/c:latest']],
  ])('%s (S1.6)', (_, change, expected = ['ghcr.io/o/c:1', 'ghcr.io/o/c:sha-1']) => {
    expect(tagsOf(change)).toEqual(expected);
  });

  test.each([
    ['a json without tags (S2.2)', { tags: '{"tags":[]}' }, 'received "{"tags":[]}"'],
    ['a malformed reference (S0.7)', { tags: 'ghcr.io/o/c:1\nghcr.io//c:2' }, 'ghcr.io//c:2'],
    ['a digest', { tags: `c@sha256:${'a'.repeat(64)}` }, 'stored under a digest'],
    ['a bare tag without repository', { tags: 'pr-1' }, '"pr-1" in the list of tags is a tag without a repository'],
    ['a repository with a tag', { repository: 'ghcr.io/o/c:1' }, 'expected a repository without a tag'],
    ['an invalid repository', { repository: 'https://ghcr.io/o/c' }, 'is not an image reference'],
  ])('%s is refused', (_, change, message) => {
    expect(() => plan(change)).toThrow(refused(message));
  });

  test('a repository is changed to lower case once for all its tags, and one notice reports it (S2.4)', () => {
    const { notices } = plan(auto, { event });
    expect(notices.filter((notice) => notice.includes('lower-case'))).toEqual([
      'Repositories are lower-case: ghcr.io/Wikid82/charon:main-6113728 becomes ghcr.io/wikid82/charon.',
    ]);
  });
});

describe('tags: auto', () => {
  test('the tags of the event are in the repository (S3.6)', () => {
    expect(tagsOf(auto, { event })).toEqual(
      ['main-6113728', 'latest', 'sha-6113728'].map((tag) => `ghcr.io/wikid82/charon:${tag}`),
    );
    expect(plan(auto, { event }).immutableTag).toBe('main-6113728');
  });

  test.each([
    ['DOCKER_METADATA_OUTPUT_TAGS', 'ghcr.io/o/c:1\nghcr.io/o/c:sha-1'],
    ['DOCKER_METADATA_OUTPUT_JSON', json],
  ])('the metadata action’s %s has priority, and the log shows it (C.5)', (name, text) => {
    const metadata = { [name]: text, DOCKER_METADATA_OUTPUT_VERSION: '1', DOCKER_METADATA_OUTPUT_LABELS: 'a=b' };
    expect(tagsOf(auto, { event, metadata })).toEqual(['ghcr.io/o/c:1', 'ghcr.io/o/c:sha-1']);
    expect(plan(auto, { event, metadata }).notices).toContain(
      `tags: auto takes the tags of docker/metadata-action, from ${name}.`,
    );
    expect(tagsOf({ tags: 'auto' }, { event, metadata })).toHaveLength(2);
  });

  test.each([
    ['TAG_NAMES', 'pr-1\nsha-1', ['x/y:pr-1', 'x/y:sha-1']],
    ['VERSION', '1.2', ['x/y:1.2']],
  ])('%s alone is a tag of the given repository (C.5)', (output, text, expected) => {
    const metadata = { [`DOCKER_METADATA_OUTPUT_${output}`]: text };
    expect(tagsOf({ tags: 'auto', repository: 'x/y' }, { event, metadata })).toEqual(expected);
  });

  test('a metadata action that left no tag is an error that shows its other output (S2.2)', () => {
    const metadata = { DOCKER_METADATA_OUTPUT_TAGS: '', DOCKER_METADATA_OUTPUT_JSON: '{"tags":[],"labels":{}}' };
    expect(() => plan(auto, { event, metadata })).toThrow(refused('received "{"tags":[],"labels":{}}"'));
    const own = { tags: 'auto', repository: 'x/y' };
    expect(tagsOf(own, { event, metadata: { DOCKER_METADATA_OUTPUT_TAGS: ' ' } })).toEqual(tagsOf(own, { event }));
  });

  test('given tags have priority over both (S2.1)', () => {
    const metadata = { DOCKER_METADATA_OUTPUT_TAGS: 'ghcr.io/o/c:1' };
    expect(tagsOf({ tags: 'mine:1' }, { event, metadata })).toEqual(['mine:1']);
  });

  test.each([
    ['no repository', { tags: 'auto' }, event, 'has no repository'],
    ['no event', auto, exportFacts.event, 'there is no workflow event here'],
    ['a deletion', auto, eventFacts('push-deleted-branch'), 'the push deleted its branch or tag'],
  ])('%s is an error that shows the cause (S2.2)', (_, change, facts, message) => {
    expect(() => plan(change, { event: facts })).toThrow(refused(message));
  });
});

test('an event without an immutable tag is reported with its reason; outside a workflow there is no notice (S1.2)', () => {
  expect(plan({}, { event: eventFacts('delete') }).notices).toEqual([
    'There is no immutable tag: the event is the deletion of a branch or tag.',
  ]);
  expect(plan({})).toMatchObject({ immutableTag: undefined, notices: [] });
});

describe('branch-label', () => {
  const branchLabel = 'io.charon.feature.branch';
  const labels = (change: Partial<ExportInputs>, facts: Partial<ExportFacts>): unknown =>
    plan({ branchLabel, ...change }, facts).source;

  test('the branch name is added unchanged to the labels of the build (S1.4)', () => {
    const build = { ...buildInputs, labels: ['a=b'] };
    expect(labels({ build }, { event: eventFacts('pull-request') })).toMatchObject({
      build: { labels: ['a=b', 'io.charon.feature.branch=feature/Add_New-Feature'] },
    });
  });

  test('if the user sets a label of that name, only that label is kept (S1.4)', () => {
    const build = { ...buildInputs, labels: ['io.charon.feature.branch=mine'] };
    expect(labels({ build }, { event })).toMatchObject({ build: { labels: ['io.charon.feature.branch=mine'] } });
  });

  test('no label is set without a branch, and a notice reports it (S1.4)', () => {
    const found = plan({ branchLabel }, { event: eventFacts('push-tag') });
    expect(found.source).toMatchObject({ build: { labels: [] } });
    expect(found.notices).toEqual(['The label io.charon.feature.branch is omitted: this run has no branch.']);
  });

  test.each([
    ['an image of the engine', { sourceImage: 'a:1' }],
    ['a tarball', { sourceTarball: 'a.tar' }],
    ['a name with =', { branchLabel: 'a=b' }],
    ['a name with a space', { branchLabel: 'a b' }],
  ])('%s can’t get the label (S1.4)', (_, change) => {
    expect(() => plan({ branchLabel, ...change }, { event })).toThrow(refused('The input `branch-label` is'));
  });
});
