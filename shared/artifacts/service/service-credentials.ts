import { HandoverError } from '../../base/errors.ts';
import { isObject, parseJson, stringOr } from '../../base/json.ts';

/** What the runner gives an action for talking to the artifact service. */
export interface ServiceCredentials {
  readonly token: string;
  /** Origin of the results service. */
  readonly origin: string;
  readonly runBackendId: string;
  readonly jobBackendId: string;
}

/**
 * @param token `ACTIONS_RUNTIME_TOKEN`; its claim `scp` holds `Actions.Results:<run>:<job>` (actions/toolkit, artifact, util.ts)
 * @param url `ACTIONS_RESULTS_URL`
 * @throws HandoverError `unsupported-host` when either is missing or not of that form
 */
export function serviceCredentials(token: string, url: string): ServiceCredentials {
  if (token === '' || url === '') {
    const missing = token === '' ? 'ACTIONS_RUNTIME_TOKEN' : 'ACTIONS_RESULTS_URL';
    throw unsupported(`${missing} is not set`);
  }
  if (!URL.canParse(url)) throw unsupported('ACTIONS_RESULTS_URL is not a URL');
  const payload = parseJson(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  const scopes = isObject(payload) ? stringOr(payload['scp'], '') : '';
  const match = /(?:^|\s)Actions\.Results:([^:\s]+):([^:\s]+)(?:\s|$)/.exec(scopes);
  const [, runBackendId, jobBackendId] = match ?? [];
  if (runBackendId === undefined || jobBackendId === undefined) {
    throw unsupported('ACTIONS_RUNTIME_TOKEN has no scope for the artifact service');
  }
  return { token, origin: new URL(url).origin, runBackendId, jobBackendId };
}

function unsupported(why: string): HandoverError {
  return new HandoverError(
    'unsupported-host',
    `The artifact service can't be reached: ${why}.`,
    'Run this as a `uses:` step of a workflow on github.com; GitHub Enterprise Server lacks this artifact service.',
  );
}
