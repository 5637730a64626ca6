import { isByteCount, isObject, type JsonObject, objectOf, objectsOf, stringOr } from '../base/json.ts';
import { quoteForeign } from '../base/text.ts';

/** The runner's facts about the event that started the workflow; missing ones are empty. */
export interface EventFacts {
  /** GITHUB_EVENT_NAME; in a called workflow, its caller's event. */
  readonly name: string;
  /** The JSON of GITHUB_EVENT_PATH; undefined without a payload. */
  readonly payload: unknown;
  /** GITHUB_REF: `refs/heads/…`, `refs/tags/…` or `refs/pull/<number>/merge`. */
  readonly ref: string;
  readonly refName: string;
  readonly refType: string;
  readonly sha: string;
  /** GITHUB_HEAD_REF; only pull requests have it. */
  readonly headRef: string;
}

/** The subject of the workflow run. Schedules, manual runs and the like run for the branch or tag that they run on. */
export type WorkflowEvent =
  /** `sha` is the head of the pull request, never the merge commit; `branch` is its head branch, if known. */
  | {
      readonly kind: 'pull-request';
      readonly number: number;
      readonly sha: string;
      readonly branch?: string | undefined;
    }
  /** `branch` is the queue's temporary branch, `gh-readonly-queue/…`; `number` is the last pull request of the group. */
  | { readonly kind: 'merge-queue'; readonly number: number; readonly sha: string; readonly branch: string }
  | { readonly kind: 'branch'; readonly name: string; readonly sha: string; readonly isDefault: boolean }
  | { readonly kind: 'tag'; readonly name: string; readonly sha: string }
  /** A commit without a branch or tag, such as a deployment of a bare commit. */
  | { readonly kind: 'commit'; readonly sha: string }
  | { readonly kind: 'none'; readonly reason: string };

// Sources: GitHub docs, "Events that trigger workflows" and "Webhook events and payloads"; octokit/webhooks,
// payload-examples. Payloads are checked member by member: other forges and local runners omit some.

/** Events for the branch that they run on. For example, a comment runs on the default branch and may be about a pull request. */
const branchEvents: readonly string[] = ['push', 'schedule', 'workflow_dispatch', 'repository_dispatch', 'create'];

/** Returns what the workflow runs for, or why that is unknown. Never throws. */
export function workflowEvent(facts: EventFacts): WorkflowEvent {
  const payload = objectOf(facts.payload);
  if (facts.name === '') return none('there is no workflow event here');
  if (facts.name === 'delete') return none('the event is the deletion of a branch or tag');
  if (facts.name === 'push' && payload['deleted'] === true) return none('the push deleted its branch or tag');
  if (facts.name.startsWith('pull_request') || isObject(payload['pull_request'])) return pullRequest(facts, payload);
  const issue = objectOf(payload['issue']);
  if (isObject(issue['pull_request'])) {
    return none(`the event ${quoteForeign(facts.name)} names a pull request, but not its commit`);
  }
  if (facts.name === 'merge_group') return mergeGroup(facts, payload);
  if (facts.name === 'workflow_run') return triggeringRun(payload);
  const commit = firstCommit(facts.sha, objectOf(payload['head_commit'])['id'], payload['after']);
  return ofRef(refOf(facts, payload), commit, isDefaultBranch(facts.name, payload));
}

/** Returns the image's source branch: for a pull request, its head branch; undefined for a tag or a bare commit. */
export function branchOf(event: WorkflowEvent): string | undefined {
  if (event.kind === 'branch') return event.name;
  return event.kind === 'pull-request' || event.kind === 'merge-queue' ? event.branch : undefined;
}

function pullRequest(facts: EventFacts, payload: JsonObject): WorkflowEvent {
  const request = objectOf(payload['pull_request']);
  const head = objectOf(request['head']);
  const fromRef = Number(/^refs\/pull\/(\d+)\//.exec(facts.ref)?.[1]);
  const number = [request['number'], payload['number'], fromRef].find(isNumber);
  const sha = firstCommit(head['sha']);
  if (number === undefined) return none(`the payload of ${quoteForeign(facts.name)} has no pull request number`);
  // GITHUB_SHA is this run's merge commit. A tag with it could not be found from the head's commit.
  if (sha === undefined) return none(`the payload of ${quoteForeign(facts.name)} has no pull_request.head.sha`);
  return { kind: 'pull-request', number, sha, branch: stringOr(head['ref'], '') || facts.headRef || undefined };
}

function mergeGroup(facts: EventFacts, payload: JsonObject): WorkflowEvent {
  const group = objectOf(payload['merge_group']);
  return ofRef(stringOr(group['head_ref'], '') || facts.ref, firstCommit(group['head_sha'], facts.sha), () => false);
}

/** A workflow_run event runs on the default branch, but is about the commit of the run that triggered it. */
function triggeringRun(payload: JsonObject): WorkflowEvent {
  const run = objectOf(payload['workflow_run']);
  const trigger = stringOr(run['event'], '');
  const branch = stringOr(run['head_branch'], '');
  // For a pull_request_target, head_sha is the base branch's commit (actions/checkout#2454).
  const sha = firstCommit(
    trigger === 'pull_request_target' ? undefined : run['head_sha'],
    objectOf(run['head_commit'])['id'],
  );
  if (sha === undefined) return none('the payload of workflow_run has no commit of the run that triggered it');
  if (trigger === 'issue_comment')
    return none('the run that triggered this one was for a comment, which names no commit');
  if (trigger === 'release') return ofRef(branch === '' ? '' : `refs/tags/${branch}`, sha, () => false);
  const requests = trigger.startsWith('pull_request') ? objectsOf(run['pull_requests']) : [];
  const request = requests.find((one) => objectOf(one['head'])['sha'] === sha) ?? requests[0];
  const number = request?.['number'];
  if (isNumber(number)) return { kind: 'pull-request', number, sha, branch: branch || undefined };
  // A fork's branch may also be called main, and the payload doesn't list a fork's pull request.
  const [home, head] = [objectOf(payload['repository']), objectOf(run['head_repository'])].map(
    (one) => one['full_name'],
  );
  const isOurs = home !== undefined && head === home;
  const isDefault = isDefaultBranch(trigger, payload);
  return ofRef(branch === '' ? '' : `refs/heads/${branch}`, sha, (name) => isOurs && isDefault(name));
}

function ofRef(ref: string, sha: string | undefined, isDefault: (branch: string) => boolean): WorkflowEvent {
  if (sha === undefined) return none('the event names no commit');
  const [, kind = '', name = ''] = /^refs\/(heads|tags|pull)\/(.+)$/s.exec(ref) ?? [];
  if (kind === 'tags') return { kind: 'tag', name, sha };
  if (kind === 'heads') {
    const queued = /^gh-readonly-queue\/.*\/pr-(\d{1,15})-[0-9a-f]+$/.exec(name)?.[1];
    return queued === undefined
      ? { kind: 'branch', name, sha, isDefault: isDefault(name) }
      : { kind: 'merge-queue', number: Number(queued), sha, branch: name };
  }
  if (kind !== 'pull') return { kind: 'commit', sha };
  const number = Number(/^(\d+)\/head$/.exec(name)?.[1]);
  return isNumber(number)
    ? { kind: 'pull-request', number, sha }
    : none(`${quoteForeign(ref)} is a merge commit, not the head of the pull request`);
}

function refOf(facts: EventFacts, payload: JsonObject): string {
  const given = facts.ref || stringOr(payload['ref'], '') || facts.refName;
  const released = stringOr(objectOf(payload['release'])['tag_name'], '');
  if (given === '') return released === '' ? '' : `refs/tags/${released}`;
  const isTag = facts.refType === 'tag' || (facts.refType === '' && payload['ref_type'] === 'tag');
  return given.startsWith('refs/') ? given : `refs/${isTag ? 'tags' : 'heads'}/${given}`;
}

function isDefaultBranch(eventName: string, payload: JsonObject): (branch: string) => boolean {
  const known = objectOf(payload['repository'])['default_branch'];
  if (!branchEvents.includes(eventName)) return () => false;
  // A schedule runs on the default branch only.
  return (branch) => branch === known || (known === undefined && eventName === 'schedule');
}

function firstCommit(...candidates: readonly unknown[]): string | undefined {
  return candidates
    .map((candidate) => stringOr(candidate, '').toLowerCase())
    .find((text) => /^[0-9a-f]{7,64}$/.test(text) && !/^0+$/.test(text));
}

function isNumber(value: unknown): value is number {
  return isByteCount(value) && value > 0;
}

function none(reason: string): WorkflowEvent {
  return { kind: 'none', reason };
}
