import type { BuildInputs } from '../inputs.ts';
import { type HandoverError, invalidInput } from '../../shared/base/errors.ts';
import type { EventFacts } from '../../shared/image/workflow-event.ts';

const placeholder = /\{\{\s*defaultContext\s*\}\}/g;

/**
 * Replaces `{{defaultContext}}` in `context` and `build-contexts` with this run's commit, as docker/build-push-action does
 * (docker/actions-toolkit, gitContext). For a pull request, it is the merge ref.
 * @param repositoryUrl web address of the repository; empty outside of a workflow
 * @throws HandoverError `invalid-input` outside of a workflow
 */
export function withDefaultContext(build: BuildInputs, { ref, sha }: EventFacts, repositoryUrl: string): BuildInputs {
  const render = (text: string): string =>
    text.replace(placeholder, () => {
      if (repositoryUrl === '') throw noRepository();
      return `${repositoryUrl}.git#${ref.startsWith('refs/pull/') || sha === '' ? ref : sha}`;
    });
  return { ...build, context: render(build.context), buildContexts: build.buildContexts.map(render) };
}

function noRepository(): HandoverError {
  return invalidInput(
    'The inputs contain {{defaultContext}}, but this step runs for no repository (GITHUB_REPOSITORY is empty).',
    'Set `context` to a path or to the URL of a repository.',
  );
}
