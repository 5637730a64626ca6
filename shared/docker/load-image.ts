import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { HandoverError } from '../errors.ts';
import type { DockerCli, RunningCli } from './cli.ts';
import { failedCommand } from './failed-command.ts';
import { type LoadReport, parseLoadOutput } from './output.ts';

/** Feeds `load` as `Engine.load` says. */
export async function loadInto(
  cli: DockerCli,
  chunks: AsyncIterable<Buffer>,
  onLoaded: (loaded: string) => void,
  tempDir?: string,
): Promise<readonly string[]> {
  const report = await load(cli, await cli.start(['load'], tempDir), chunks);
  report.loaded.forEach(onLoaded);
  if (report.failure !== undefined) throw report.failure;
  return report.loaded;
}

async function load(
  cli: DockerCli,
  running: RunningCli,
  chunks: AsyncIterable<Buffer>,
): Promise<LoadReport & { readonly failure?: HandoverError }> {
  const said = Promise.all([text(running.stdout), text(running.stderr)]);
  const state = { ended: false };
  void running.exit.then(() => (state.ended = true));
  try {
    for await (const chunk of chunks) {
      if (state.ended) break;
      if (!running.stdin.write(chunk)) await Promise.race([once(running.stdin, 'drain'), running.exit]).catch(() => 0);
    }
  } catch (error) {
    // Killed before its input ends, so that the engine can't take what it has for a whole tarball.
    running.kill();
    await running.exit;
    throw error;
  }
  running.stdin.end();
  const exitCode = await running.exit;
  const [stdout, stderr] = await said;
  const report = parseLoadOutput(`${stdout}\n${stderr}`);
  if (exitCode === 0 && report.unpackError === undefined) return report;
  const output = { exitCode, stdout, stderr: report.unpackError ?? stderr };
  return { ...report, failure: failedCommand(cli, 'load-failed', ['load'], output) };
}
