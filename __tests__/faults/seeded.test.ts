import { appendFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { runStep, type StepOutcome } from '../../dev/action-runner.ts';
import type { DockerEngine } from '../../dev/docker-engine.ts';
import { errorCodes } from '../../shared/base/errors.ts';
import type { ArtifactService } from '../fakes/artifact-service/service.ts';
import { type OwnEngines, halfOf, startArtifactService, startOwnEngines, testedDocker } from '../fixtures/engines.ts';
import { type FaultCase, faultCase, mustSucceed, describeCase, type Phase } from '../fixtures/fault-cases.ts';
import { makeImage, savedTarball } from '../fixtures/image.ts';
import { errorCode } from '../fixtures/scenario.ts';

// With any fault at any moment, a step either passes with exactly the right image, or fails with a code and restores everything.
// It ends in time, leaves no process, and the next step succeeds. `npm run faults` has more of these cases.

const seed = Number(process.env['FAULTS_SEED'] ?? 1);
const cases = Number(process.env['FAULTS_CASES'] ?? 10);
const first = Number(process.env['FAULTS_FIRST'] ?? 0);

let engines: OwnEngines;
let service: ArtifactService;
let tarball: string;
let otherTarball: string;
/** Duration of a step without a fault in ms. */
const usualMs = new Map<string, number>();

const image = makeImage({ layers: 3, layerBytes: 5_000_000 });
const other = makeImage({ layers: 1, layerBytes: 1000 });

beforeAll(async () => {
  engines = await startOwnEngines();
  service = await startArtifactService();
  tarball = join(engines.directory, 'image.tar');
  otherTarball = join(engines.directory, 'other.tar');
  writeFileSync(tarball, savedTarball(image, ['charon:local']));
  writeFileSync(otherTarball, savedTarball(other, ['charon:local']));
  const handedOver = await step('hand over', 'containerd', true);
  expect(handedOver.log).not.toContain('::error');
  for (const store of ['classic', 'containerd'] as const) {
    for (const phase of ['load', 'hand over', 'build'] as const) {
      const began = performance.now();
      const outcome = await step(phase, store, true, { artifact: 'warm-up' });
      expect(outcome.log).not.toContain('::error');
      usualMs.set(`${phase} ${store}`, performance.now() - began);
      await removeArtifacts('warm-up');
    }
    clear(engines[store]);
  }
  rmSync(join(engines.directory, 'out.tar'));
});
afterEach(async () => {
  for (const { name } of service.artifacts) if (name.startsWith('image-')) await removeArtifacts(name);
  for (const file of readdirSync(engines.directory).filter((name) => name.startsWith('out.tar')))
    rmSync(join(engines.directory, file));
  for (const store of ['classic', 'containerd'] as const) clear(engines[store]);
});
afterAll(async () => {
  await service.close();
  await engines.stop();
});

interface Interference {
  readonly artifact?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  readonly killWith?: NodeJS.Signals;
}

function step(
  phase: Phase,
  store: FaultCase['store'],
  overlap: boolean,
  { artifact = 'docker-image', env, ...more }: Interference = {},
): Promise<StepOutcome> {
  const limits = { 'timeout-minutes': '0.6' };
  const target = { tarball: join(engines.directory, 'out.tar'), 'artifact-name': artifact };
  const source =
    phase === 'build'
      ? { context: 'examples/hello', 'build-contexts': `busybox=${engines.rootFilesystem}`, network: 'host' }
      : { 'source-tarball': tarball, image: 'charon:local' };
  const inputs = phase === 'load' ? { ...limits, overlap: String(overlap) } : { ...limits, ...target, ...source };
  return runStep({
    action: phase === 'load' ? 'load-image' : 'export-image',
    inputs,
    expressions: { 'github.job': 'build', 'strategy.job-index': '0', 'github.token': service.rest.token },
    env: { ...service.env(), ...engines[store].env, ...env },
    ...more,
  });
}

async function removeArtifacts(name: string): Promise<void> {
  for (const artifact of service.artifacts.filter((item) => item.name === name)) {
    await service.blobs.remove(artifact.blob);
    Object.assign(artifact, { name: '\u0000deleted', finalised: false });
  }
}

function clear(engine: DockerEngine): void {
  const ids = engine.docker('image', 'ls', '--all', '--quiet', '--no-trunc').trim().split('\n');
  for (const id of new Set(ids)) if (id !== '') engine.docker('image', 'rm', '--force', id);
}

/** Returns all references and images of the engine. The containerd store's `image ls` omits digests of tagged images. */
function everything({ docker }: DockerEngine): readonly string[] {
  const ids = [...new Set(docker('image', 'ls', '--all', '--quiet', '--no-trunc').trim().split('\n'))].filter(Boolean);
  return ids.map((id) => `${docker('image', 'inspect', '--format', '{{json .RepoTags}}', id).trim()} ${id}`).sort();
}

const artifactsNamed = (name: string): readonly string[] =>
  service.artifacts
    .filter((item) => item.name === name)
    .map(({ finalised }) => (finalised ? 'finished' : 'unfinished'));

/** Returns the processes with a case's mark in their environment. */
function processesOf(mark: string): readonly string[] {
  return readdirSync('/proc').flatMap((pid) => {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`FAULT_CASE=${mark}\0`)) return [];
      return [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')];
    } catch {
      // Not a process, or one that has just ended.
      return [];
    }
  });
}

const expectedId = (store: FaultCase['store']): string =>
  store === 'classic' ? image.configDigest : image.manifestDigest;

/** @returns the step's environment and signal, and a function that cancels a fault that hasn't happened yet */
function interfere(
  planned: FaultCase['planned'],
  engine: DockerEngine,
  usual: number,
): { readonly how: Interference; readonly end: () => void } {
  if (planned.kind === 'service') {
    service.faults.add(planned.fault);
    return { how: {}, end: service.faults.clear };
  }
  const controller = new AbortController();
  const timer = setTimeout(() => {
    if (planned.kind === 'engine') engine.signal(planned.how === 'killed' ? 'SIGKILL' : 'SIGSTOP');
    else controller.abort();
  }, planned.at * usual);
  const end = (): void => {
    clearTimeout(timer);
  };
  return {
    how: planned.kind === 'engine' ? {} : { signal: controller.signal, killWith: planned.signal },
    end,
  };
}

async function restore(planned: FaultCase['planned'], engine: DockerEngine): Promise<void> {
  if (planned.kind !== 'engine') return;
  if (planned.how === 'stopped') engine.signal('SIGCONT');
  else await engine.restart();
  // A resumed daemon first handles earlier requests.
  await sleep(1000);
}

function report(line: Readonly<Record<string, unknown>>): void {
  const path = process.env['FAULTS_REPORT'];
  if (path !== undefined) appendFileSync(path, `${JSON.stringify({ docker: testedDocker(), ...line })}\n`);
}

const all = Array.from({ length: cases }, (_, at) => first + at);
// Explicitly selected cases run on each Docker.
const numbers = process.env['FAULTS_CASES'] === undefined ? halfOf(all) : all;

test.each(numbers.map((number) => [number, describeCase(faultCase(seed, number)), faultCase(seed, number)] as const))(
  `seed ${String(seed)}, case %i: %s`,
  async (number, words, planned) => {
    const { phase, store, overlap, before } = planned;
    const engine = engines[store];
    const name = phase === 'load' ? 'docker-image' : `image-${String(number)}`;
    if (before === 'another image') engine.docker('load', '--input', otherTarball);
    const was = everything(engine);
    const mark = `${String(seed)}-${String(number)}-${testedDocker()}`;
    const usual = usualMs.get(`${phase} ${store}`) ?? 3000;
    const { how, end } = interfere(planned.planned, engine, usual);
    const outcome = await step(phase, store, overlap, { artifact: name, ...how, env: { FAULT_CASE: mark } });
    end();
    const processes = processesOf(mark);
    await restore(planned.planned, engine);
    // Processes of a killed step continue, and may tag their image after the next step has looked for it.
    while (processesOf(mark).length > 0) await sleep(100);
    const code = errorCode(outcome) ?? '';
    report({ number, words, exitCode: outcome.exitCode, code, passed: mustSucceed(planned) });

    // Killed by SIGKILL, or by another signal before the step had set its handlers.
    const mayBeKilled =
      planned.planned.kind === 'signal' && (planned.planned.signal === 'SIGKILL' || outcome.log === '');
    if (!mayBeKilled || outcome.exitCode !== -1) judge(planned, outcome, { code, processes, was, name });

    // This can also be true after a SIGKILL that arrived after the last call.
    const isThere = phase !== 'load' && artifactsNamed(name).includes('finished');
    const again = await step(phase, store, overlap, { artifact: name });
    if (isThere) expect(errorCode(again)).toBe('artifact-name-taken');
    else expect(again.log).not.toContain('::error');
    expect(artifactsNamed(name)).toEqual(['finished']);
    expect(again.leftInTemp).toEqual([]);
    expect(readdirSync(engines.directory).filter((file) => file.includes('partial'))).toEqual([]);
    if (phase === 'load') expect(everything(engine)).toContain(`["charon:local"] ${expectedId(store)}`);
    expect(everything(engine).join('\n')).not.toContain('handover');
  },
);

interface Seen {
  readonly code: string;
  readonly processes: readonly string[];
  readonly was: readonly string[];
  readonly name: string;
}

function judge(planned: FaultCase, { exitCode, log, outputs, leftInTemp }: StepOutcome, seen: Seen): void {
  const { phase, store } = planned;
  const now = everything(engines[store]);
  expect(log).not.toContain('unexpected error');
  // The step wasn't killed, neither by the runner after 10 s nor by itself.
  expect([0, 1]).toContain(exitCode);
  expect(leftInTemp).toEqual([]);
  expect(seen.processes).toEqual([]);
  if (mustSucceed(planned)) expect(log).not.toContain('::error');
  // Changes that an unresponsive engine can't undo are in the log.
  const stays = planned.planned.kind === 'engine' && /could not be (?:removed from the engine|restored)/.test(log);
  if (exitCode === 0) {
    if (phase === 'load')
      expect(now).toContainEqual(
        expect.stringMatching(
          stays ? `"charon:local"] ${expectedId(store)}` : `^\\["charon:local"] ${expectedId(store)}$`,
        ),
      );
    else {
      expect(artifactsNamed(seen.name)).toEqual(['finished']);
      expect(outputs['run-integration']).toBe('true');
      if (!stays) expect(now).toEqual(seen.was);
    }
    return;
  }
  const known: readonly string[] = errorCodes;
  expect(known).toContain(seen.code);
  expect(log).toContain('Next step: ');
  expect(outputs['run-integration'] ?? 'false').toBe('false');
  if (phase !== 'load') {
    expect(artifactsNamed(seen.name)).toEqual([]);
    expect(existsSync(join(engines.directory, 'out.tar'))).toBe(false);
  }
  if (!stays) expect(now).toEqual(seen.was);
}
