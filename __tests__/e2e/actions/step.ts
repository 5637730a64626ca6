import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';

// What the stand-ins for other people's actions share: a step's inputs, outputs, state, and the commands that it runs.

export function input(name: string): string {
  return (process.env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`] ?? '').trim();
}

/** Items of a list, one a line; empty lines are none. */
export function lines(name: string): readonly string[] {
  return input(name)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** Items of a list whose lines may hold several, between commas. */
export function items(name: string): readonly string[] {
  return lines(name).flatMap((line) => line.split(',').map((item) => item.trim()));
}

export const isTrue = (name: string): boolean => input(name).toLowerCase() === 'true';

export const setOutput = (name: string, value: string): void => toFile('GITHUB_OUTPUT', name, value);
export const exportVariable = (name: string, value: string): void => toFile('GITHUB_ENV', name, value);
export const saveState = (name: string, value: string): void => toFile('GITHUB_STATE', name, value);
export const state = (name: string): string => env(`STATE_${name}`);

export function env(name: string): string {
  return process.env[name] ?? '';
}

/** Runs a command whose output is the step's log; the step fails where it does. */
export function run(program: string, ...args: readonly string[]): void {
  console.log(`[command]${[program, ...args].join(' ')}`);
  const { status, error } = spawnSync(program, args, { stdio: 'inherit' });
  if (status !== 0)
    fail(`${program} failed with exit code ${String(status)}${error === undefined ? '' : `: ${error.message}`}`);
}

/** What a command prints. */
export function ask(program: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) fail(`${program} ${args.join(' ')}: ${stderr}`);
  return stdout.trim();
}

export function fail(message: string): never {
  console.log(`::error::${message.trim().replaceAll('%', '%25').replaceAll('\n', '%0A')}`);
  process.exit(1);
}

function toFile(variable: string, name: string, value: string): void {
  const end = `end_${randomUUID()}`;
  appendFileSync(env(variable), `${name}<<${end}\n${value}\n${end}\n`);
}
