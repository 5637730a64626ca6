import { registerHooks } from 'node:module';
import { parseAllDocuments } from 'yaml';

// GitHub's own reader of action.yml and of workflow files (`@actions/workflow-parser`, of actions/languageservices). It knows
// which expressions may stand where: the runner refuses to load an action whose descriptions hold expressions.

// The package is made for bundlers: it imports its schemas as JSON without saying so.
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

/** What the runner's reader has against an action.yml, each with its place; none when the action can be loaded. */
export function actionComplaints(text: string): readonly string[] {
  return complaintsOf(parseAction({ name: '', content: text }, new NoOperationTraceWriter()).context);
}

/**
 * What GitHub's reader has against a workflow, each with its place.
 * @param isWhole false for a workflow made of a snippet, which may need jobs that it doesn't show
 */
export async function workflowComplaints(text: string, isWhole = true): Promise<readonly string[]> {
  const context = new TemplateContext(
    new TemplateValidationErrors(),
    getWorkflowSchema(),
    new NoOperationTraceWriter(),
  );
  // `background`, `wait`, `cancel` and `parallel` have been there since June 2026; the package (0.3.61) knows them behind a switch.
  context.state['featureFlags'] = new FeatureFlags({ allowBackgroundSteps: true });
  const { value } = parseWorkflow({ name: '', content: text }, context);
  if (isWhole && value !== undefined && context.errors.count === 0) await convertWorkflowTemplate(context, value);
  return complaintsOf(context);
}

function complaintsOf({ errors }: Context): readonly string[] {
  return errors.getErrors().map(({ message }) => message.trim());
}

/** A workflow that shows the YAML of a snippet: itself, or the least that can stand around it. */
export interface SnippetWorkflow {
  readonly text: string;
  readonly isWhole: boolean;
}

const frame = { on: 'on: push\n', jobs: 'jobs:\n', job: '  job:\n    runs-on: ubuntu-latest\n    steps:\n' } as const;

/** What a snippet of the documentation stands for. What has `jobs` must be whole: readers paste it as it is. */
export function workflowOfSnippet(snippet: string): SnippetWorkflow {
  const content: unknown = parseAllDocuments(snippet).at(0)?.toJS();
  if (Array.isArray(content)) return part(frame.on + frame.jobs + frame.job + indented(snippet, 6));
  const keys = typeof content === 'object' && content !== null ? Object.keys(content) : [];
  if (keys.includes('jobs')) return { text: snippet, isWhole: true };
  const isTopLevel = keys.some((key) => ['on', 'permissions', 'env', 'name', 'defaults', 'concurrency'].includes(key));
  if (!isTopLevel) return part(frame.on + frame.jobs + indented(snippet, 2));
  return part(
    (keys.includes('on') ? '' : frame.on) + snippet + frame.jobs + frame.job + indented('- run: "true"\n', 6),
  );
}

function part(text: string): SnippetWorkflow {
  return { text, isWhole: false };
}

function indented(text: string, by: number): string {
  const own = /^ */.exec(text.replace(/^(?: *(?:#.*)?\n)*/, ''))?.[0].length ?? 0;
  const lines = text.split('\n').map((line) => (line.trim() === '' ? '' : ' '.repeat(by) + line.slice(own)));
  return lines.join('\n');
}
