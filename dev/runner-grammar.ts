import { registerHooks } from 'node:module';
import { parseAllDocuments } from 'yaml';

// GitHub's own reader of action.yml and workflow files (`@actions/workflow-parser`, in actions/languageservices). It checks where
// expressions are allowed: the runner rejects an action whose descriptions contain any.

// The package is made for bundlers: it imports JSON without import attributes.
registerHooks({
  load: (url, context, next) =>
    next(url, url.endsWith('.json') ? { ...context, importAttributes: { type: 'json' } } : context),
});
const { FeatureFlags } = await import('@actions/expressions/features');
const { convertWorkflowTemplate, NoOperationTraceWriter } = await import('@actions/workflow-parser');
const { parseAction } = await import('@actions/workflow-parser/actions/action-parser');
const { TemplateContext, TemplateValidationErrors } =
  await import('@actions/workflow-parser/templates/template-context');
const { getWorkflowSchema } = await import('@actions/workflow-parser/workflows/workflow-schema');
const { parseWorkflow } = await import('@actions/workflow-parser/workflows/workflow-parser');

type Context = InstanceType<typeof TemplateContext>;

/** Returns the errors of the runner's reader in an action.yml, with their positions. */
export function actionErrors(text: string): readonly string[] {
  return errorsOf(parseAction({ name: '', content: text }, new NoOperationTraceWriter()).context);
}

/**
 * Returns the errors of GitHub's reader in a workflow, with their positions.
 * @param isWhole false for a workflow made from a snippet, which may need jobs that it doesn't contain
 */
export async function workflowErrors(text: string, isWhole = true): Promise<readonly string[]> {
  const context = new TemplateContext(
    new TemplateValidationErrors(),
    getWorkflowSchema(),
    new NoOperationTraceWriter(),
  );
  // `background`, `wait`, `cancel` and `parallel` have existed since June 2026. The package (0.3.61) requires a feature flag for them.
  context.state['featureFlags'] = new FeatureFlags({ allowBackgroundSteps: true });
  const { value } = parseWorkflow({ name: '', content: text }, context);
  if (isWhole && value !== undefined && context.errors.count === 0) await convertWorkflowTemplate(context, value);
  return errorsOf(context);
}

function errorsOf({ errors }: Context): readonly string[] {
  return errors.getErrors().map(({ message }) => message.trim());
}

/** A workflow that contains a snippet: the snippet alone, or with the required minimum around it. */
export interface SnippetWorkflow {
  readonly text: string;
  readonly isWhole: boolean;
}

const frame = { jobs: 'jobs:\n', job: '  job:\n    runs-on: ubuntu-latest\n    steps:\n' } as const;

/** Returns the keys that a workflow needs above its jobs, except those that it already has. */
function headWithout(keys: readonly string[]): string {
  return ['on: push\n', 'permissions: {}\n'].filter((line) => !keys.includes(line.split(':')[0] ?? '')).join('');
}

/** Returns a workflow for a snippet in the documentation. A snippet with `jobs` must be complete, because readers copy it unchanged. */
export function workflowOfSnippet(snippet: string): SnippetWorkflow {
  const content: unknown = parseAllDocuments(snippet).at(0)?.toJS();
  if (Array.isArray(content)) return part(headWithout([]) + frame.jobs + frame.job + indented(snippet, 6));
  const keys = typeof content === 'object' && content !== null ? Object.keys(content) : [];
  if (keys.includes('jobs')) return { text: snippet, isWhole: true };
  const isTopLevel = keys.some((key) => ['on', 'permissions', 'env', 'name', 'defaults', 'concurrency'].includes(key));
  if (!isTopLevel) return part(headWithout([]) + frame.jobs + indented(snippet, 2));
  return part(headWithout(keys) + snippet + frame.jobs + frame.job + indented('- run: "true"\n', 6));
}

function part(text: string): SnippetWorkflow {
  return { text, isWhole: false };
}

function indented(text: string, by: number): string {
  const indent = /^ */.exec(text.replace(/^(?: *(?:#.*)?\n)*/, ''))?.[0].length ?? 0;
  const lines = text.split('\n').map((line) => (line.trim() === '' ? '' : ' '.repeat(by) + line.slice(indent)));
  return lines.join('\n');
}
