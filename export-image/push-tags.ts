import { parseMetadataTags } from '../shared/image/metadata-tags.ts';
import { formatReference, parseTaggedReference, type TaggedReference } from '../shared/image/reference.ts';

/**
 * What the input `tags` means: one reference a line, or the metadata action's JSON. `latest` where a tag is missing;
 * the first is the one that the outputs name.
 * @throws HandoverError `invalid-input` when there is none, or one has a digest
 */
export function readPushTags(tags: string): readonly [TaggedReference, ...TaggedReference[]] {
  const tagged = ({ loweredFrom, ...reference }: ReturnType<typeof parseMetadataTags>[0]): TaggedReference => ({
    ...parseTaggedReference(formatReference(reference)),
    ...(loweredFrom === undefined ? {} : { loweredFrom }),
  });
  const [first, ...rest] = parseMetadataTags(tags);
  return [tagged(first), ...rest.map(tagged)];
}
