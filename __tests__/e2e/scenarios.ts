import { firstWorkflow } from './scenarios/first-workflow.ts';
import type { Scenario } from './stage.ts';

export const scenarios: readonly Scenario[] = [firstWorkflow];
