import { env, input, run } from '../step.ts';

const workspace = env('GITHUB_WORKSPACE');
const git = (...args: readonly string[]): void => run('git', '-C', workspace, ...args);
run('git', 'init', '--quiet', workspace);
git('remote', 'add', 'origin', `${env('GITHUB_SERVER_URL')}/${env('GITHUB_REPOSITORY')}`);
git('fetch', '--quiet', '--no-tags', '--depth=1', 'origin', input('ref') || env('GITHUB_SHA'));
git('checkout', '--quiet', '--force', '--detach', 'FETCH_HEAD');
