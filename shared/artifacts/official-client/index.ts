// The official client would be most of each bundle, but is needed only when the artifact service answers in an unknown form. So it has
// its own bundle next to the actions' bundles, and is loaded only then (shared/artifacts/service/official-store.ts).
export { DefaultArtifactClient } from '@actions/artifact';
