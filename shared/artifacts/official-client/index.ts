// The official client is most of what a bundle would hold, and is needed when the artifact service answers in a way that ours doesn't
// know: so it is a bundle of its own, beside those of the actions, and is loaded only then (shared/artifacts/service/official-store.ts).
export { DefaultArtifactClient } from '@actions/artifact';
