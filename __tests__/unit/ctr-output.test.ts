import { describe, expect, test } from '@jest/globals';
import { parseCtrCheck, parseCtrConfigDigest, parseCtrImages, parseSnapshotter } from '../../shared/docker/output.ts';
import { formatDestination, parseDestination } from '../../shared/image/destination.ts';

const [one, other] = [`sha256:${'1'.repeat(64)}`, `sha256:${'2'.repeat(64)}`];
const manifest = 'application/vnd.oci.image.manifest.v1+json';

test('images are read by their columns, without the header and without lines that have no digest', () => {
  const text = [
    'REF                            TYPE                                       DIGEST  SIZE     PLATFORMS   LABELS ',
    `docker.io/library/charon:local ${manifest} ${one} 98.9 KiB linux/amd64 io.cri-containerd.image=managed `,
    `${other} ${manifest} ${other} 1.0 MiB linux/amd64 - `,
    'a warning of some kind',
    '',
  ].join('\n');
  expect(parseCtrImages(text)).toEqual([
    { name: 'docker.io/library/charon:local', target: one },
    { name: other, target: other },
  ]);
});

test.each<[string, boolean]>([
  ['complete (3/3) 98.3 KiB/98.3 KiB true', true],
  ['complete (3/3) 98.3 KiB/98.3 KiB false', true],
  ['incomplete (2/3) 50 KiB/98.3 KiB true', false],
  ['complete (2/3) 50 KiB/98.3 KiB true', false],
  ['unavailable (0/?) -/? false', false],
])('an image with the check result "%s" is complete: %s', (status, isWhole) => {
  const whole = `b:1 ${manifest} ${one} complete (9/9) 1 KiB/1 KiB true`;
  expect(
    parseCtrCheck(`REF TYPE DIGEST STATUS SIZE UNPACKED\na:1 ${manifest} ${one} ${status}\n${whole}\n`, 'a:1'),
  ).toBe(isWhole);
});

test.each<[string, string | undefined]>([
  [
    `containerd.io/distribution.source.x=y,containerd.io/gc.ref.content.config=${other},containerd.io/gc.ref.content.l.0=${one}`,
    other,
  ],
  [`containerd.io/gc.ref.content.0=${other}`, undefined],
  ['containerd.io/gc.ref.content.config=sha256:1', undefined],
  ['-', undefined],
])('the config digest that containerd found in a manifest is read from its labels: %s', (labels, expected) => {
  const others = `${other}\t1kB\t2 seconds\tcontainerd.io/gc.ref.content.config=${one}\n`;
  const text = `DIGEST\tSIZE\tAGE\tLABELS\n${others}${one}\t500B\t2 seconds\t${labels}\n`;
  expect(parseCtrConfigDigest(text, `sha256:${'1'.repeat(64)}`)).toBe(expected);
});

describe('the snapshotter for images of Kubernetes', () => {
  test.each<[string, string, string | undefined]>([
    [
      'containerd 1',
      'version = 2\n[plugins]\n  [plugins.\'x\']\n    snapshotter = \'zfs\'\n  [plugins."io.containerd.grpc.v1.cri".containerd]\n    snapshotter = "fuse-overlayfs"\n',
      'fuse-overlayfs',
    ],
    [
      'containerd 2',
      "version = 3\n  [plugins.'io.containerd.cri.v1.images']\n    snapshotter = 'native'\n    [plugins.'io.containerd.cri.v1.images'.pinned_images]\n",
      'native',
    ],
    ['no snapshotter', "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = ''\n", undefined],
    [
      'a snapshotter for a runtime only',
      "[plugins.'io.containerd.cri.v1.runtime'.x]\n  snapshotter = 'devmapper'\n",
      undefined,
    ],
  ])('the snapshotter is read from the configuration: %s', (_, text, expected) => {
    expect(parseSnapshotter(text)).toBe(expected);
  });
});

test.each([
  'docker',
  'none',
  'kind:kind',
  'kind:chart-testing',
  'k3d:k3s-default',
  'minikube:minikube',
  'containerd:k8s.io',
])('`into: %s` is accepted, and formatted unchanged', (text) => {
  expect(formatDestination(parseDestination(text))).toBe(text);
});

test.each([
  '',
  'Kind',
  'kind:',
  'k3d',
  'minikube:',
  'minikube:-p x',
  'kind:a/b',
  'kind:-f x',
  'containerd',
  'containerd:a b',
  'containerd:../x',
  'none:x',
  'docker:x',
])('`into: %s` is refused', (text) => {
  expect(() => parseDestination(text)).toThrow('expected docker, none, kind');
});
