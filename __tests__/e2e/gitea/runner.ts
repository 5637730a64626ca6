import assert from 'node:assert/strict';
import type { Gitea } from '../../../dev/gitea.ts';
import { isObject, type JsonObject, stringMapOf, stringOr } from '../../../shared/base/json.ts';

// The runner's side of Gitea Actions. It replaces Gitea's own runner, which can't be fetched here. The calls are JSON over HTTP
// (code.gitea.io/actions-proto-go, runner/v1; Gitea's side is routers/api/actions/runner/runner.go).

/** Results of jobs, as in the `needs` context. */
export type Result = 'success' | 'failure' | 'cancelled' | 'skipped';

/** A job that Gitea has assigned to this runner. */
export interface Task {
  readonly id: string;
  /** A workflow with only this job: one leg of a matrix, without its `needs`. */
  readonly workflow: string;
  /** The `github` context, with `token` and `gitea_runtime_token`. */
  readonly context: JsonObject;
  readonly needs: Readonly<Record<string, Need>>;
}

interface Need {
  readonly result: Result;
  readonly outputs: Readonly<Record<string, string>>;
}

export interface Runner {
  /** Returns a job that waits for a runner, or undefined. */
  fetch(): Promise<Task | undefined>;
  /** Reports that a task is running. Returns whether it has been cancelled. */
  isCancelled(task: Task): Promise<boolean>;
  finish(task: Task, result: Result, outputs: Readonly<Record<string, string>>): Promise<void>;
}

/** Registers a runner of the repository for `ubuntu-latest`. */
export async function registerRunner(gitea: Gitea): Promise<Runner> {
  const created = await gitea.api('POST', `/repos/${gitea.repository}/actions/runners/registration-token`);
  const token = isObject(created) ? created['token'] : '';
  const labels = ['ubuntu-latest', 'self-hosted'];
  const { runner } = await call(gitea, 'Register', { name: 'e2e', token, version: 'v1.0.0', labels });
  assert.ok(isObject(runner), 'Register returned no runner');
  const login = { 'x-runner-uuid': stringOr(runner['uuid'], ''), 'x-runner-token': stringOr(runner['token'], '') };
  await call(gitea, 'Declare', { version: 'v1.0.0', labels }, login);
  const update = async (task: Task, state: JsonObject, outputs: Task['needs'][string]['outputs'] = {}) =>
    call(gitea, 'UpdateTask', { state: { id: task.id, ...state }, outputs }, login);
  return {
    // An outdated version of the queue: the current one would mean that the runner has seen all tasks.
    fetch: async () => taskOf((await call(gitea, 'FetchTask', { tasksVersion: '0' }, login))['task']),
    isCancelled: async (task) => {
      const { state } = await update(task, {});
      return isObject(state) && state['result'] === 'RESULT_CANCELLED';
    },
    finish: async (task, result, outputs) => {
      await update(task, { result: `RESULT_${result.toUpperCase()}`, stoppedAt: new Date().toISOString() }, outputs);
    },
  };
}

function taskOf(value: unknown): Task | undefined {
  if (!isObject(value)) return undefined;
  const { context, needs } = value;
  return {
    id: stringOr(value['id'], ''),
    workflow: Buffer.from(stringOr(value['workflowPayload'], ''), 'base64').toString(),
    context: isObject(context) ? context : {},
    needs: Object.fromEntries(Object.entries(isObject(needs) ? needs : {}).map(([id, need]) => [id, needOf(need)])),
  };
}

function needOf(value: unknown): Need {
  assert.ok(isObject(value));
  const word = stringOr(value['result'], '').replace('RESULT_', '').toLowerCase();
  const result = results.find((known) => known === word);
  assert.ok(result !== undefined, `a required job ended with "${word}"`);
  return { result, outputs: stringMapOf(value['outputs']) };
}

const results: readonly Result[] = ['success', 'failure', 'cancelled', 'skipped'];

async function call(
  { url }: Gitea,
  method: string,
  body: JsonObject,
  login: Readonly<Record<string, string>> = {},
): Promise<JsonObject> {
  const response = await fetch(`${url}/api/actions/runner.v1.RunnerService/${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...login },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method}: HTTP ${String(response.status)} ${text}`);
  const value: unknown = JSON.parse(text);
  assert.ok(isObject(value), `${method} returned no object`);
  return value;
}
