import { UnknownAnswer } from './results-service.ts';
import type { Artifact, ArtifactContent, ArtifactStore } from '../store.ts';

/**
 * Our own store, and the official client where the service answers in a way that ours doesn't know.
 * @param say told when the official client takes over
 */
export function fallbackStore(
  own: ArtifactStore,
  official: ArtifactStore,
  say: (message: string) => void,
): ArtifactStore {
  let useOfficial = false;
  const either = async <T>(work: (store: ArtifactStore) => Promise<T>): Promise<T> => {
    if (useOfficial) return work(official);
    try {
      return await work(own);
    } catch (error) {
      if (!(error instanceof UnknownAnswer)) throw error;
      say(`The artifact service answered in an unknown way (${error.message}): using the official client instead.`);
      useOfficial = true;
      return work(official);
    }
  };
  return {
    list: () => either((store) => store.list()),
    open: (artifact: Artifact): Promise<ArtifactContent> => either((store) => store.open(artifact)),
    upload: (request) => either((store) => store.upload(request)),
    remove: (artifact) => either((store) => store.remove(artifact)),
    [Symbol.asyncDispose]: async () => {
      await own[Symbol.asyncDispose]();
      await official[Symbol.asyncDispose]();
    },
  };
}
