// The official client would be most of each bundle, and is needed only when the artifact service answers in an unknown form. So it is a
// bundle of its own, next to those of the actions, and is loaded only then (shared/artifacts/service/official-store.ts).
export { DefaultArtifactClient } from '@actions/artifact';
