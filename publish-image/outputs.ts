import { canonicalReference, formatReference } from '../shared/image/reference.ts';
import type { PublishResult } from './publish-image.ts';

export function publishOutputs({ digest, references, bytes, isNew }: PublishResult): Readonly<Record<string, string>> {
  const [{ repository }] = references;
  return {
    digest,
    references: references.map(formatReference).join('\n'),
    'pushed-reference': formatReference({ repository, digest }),
    // For actions/attest, Docker Hub is index.docker.io.
    'subject-name': canonicalReference({ repository }).replace(/^docker\.io\//, 'index.docker.io/'),
    published: String(isNew),
    'pushed-bytes': String(bytes.pushed),
    'mounted-bytes': String(bytes.mounted),
  };
}
