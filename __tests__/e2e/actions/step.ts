import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';

// Shared by the replacements of other actions: a step's inputs, outputs, state and commands.

export function input(name: string): string {
  return (process.env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`] ?? '').trim();
}

/** Reads a list with one item per line. Skips empty lines. */
export function lines(name: string): readonly string[] {
  return input(name)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** Reads a list whose lines may contain several items, separated by commas. */
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

/** Runs a command and writes its output to the step's log. The step fails if the command fails. */
export function run(program: string, ...args: readonly string[]): void {
  console.log(`[command]${[program, ...args].join(' ')}`);
  const { status, error } = spawnSync(program, args, { stdio: 'inherit' });
  if (status !== 0)
    fail(`${program} failed with exit code ${String(status)}${error === undefined ? '' : `: ${error.message}`}`);
}

/** Returns the output of a command. */
export function outputOf(program: string, ...args: readonly string[]): string {
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
