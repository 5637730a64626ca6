import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startArtifactService } from '../__tests__/fakes/artifact-service/service.ts';
import { runStep, type StepOutcome, type StepRequest } from './action-runner.ts';
import { type DockerEngine, startDockerEngine } from './docker-engine.ts';
import { writeRootFilesystem } from './test-images.ts';

// Runs the main job on two real engines, one for each runner. Only the artifact service is a fake.

if (process.getuid?.() !== 0) {
  console.error('The demo starts two Docker engines, which needs root: sudo npm run demo');
  process.exit(1);
}
const folder = mkdtempSync(join(tmpdir(), 'image-handover-demo-'));
const engines: DockerEngine[] = [];
const service = await startArtifactService();
try {
  title('Two runners: a build job on the classic image store, an integration job on the containerd store');
  const [builder, tester] = await Promise.all([
    startDockerEngine({ store: 'classic' }),
    startDockerEngine({ store: 'containerd' }),
  ]);
  engines.push(builder, tester);
  for (const engine of engines)
    console.log(`${engine.store}: Docker ${engine.docker('info', '--format', '{{.ServerVersion}}').trim()}`);
  await writeRootFilesystem(join(folder, 'rootfs'));

  title('Build job: uses: org/image-handover/export-image@v1');
  const exported = await step({
    action: 'export-image',
    inputs: {
      context: 'examples/hello',
      'build-contexts': `busybox=${join(folder, 'rootfs')}`,
      'build-args': 'VERSION=1.0',
      network: 'host',
      tarball: join(folder, 'charon.tar'),
    },
    env: { ...service.env({ jobId: 'build' }), ...builder.env },
    expressions: { 'github.job': 'build', 'strategy.job-index': '0' },
  });

  title('Integration job: uses: org/image-handover/load-image@v1');
  const loaded = await step({
    action: 'load-image',
    inputs: { 'expected-config-digest': exported.outputs['config-digest'] ?? '' },
    env: { ...service.env({ jobId: 'integration' }), ...tester.env },
  });

  title('docker run charon:local, on the second runner');
  console.log(tester.docker('run', '--rm', '--network=none', 'charon:local'));
  title('Job summary of the build job');
  console.log(exported.summary);
  title('Job summary of the integration job');
  console.log(loaded.summary);
} finally {
  await Promise.all(engines.map((engine) => engine.stop()));
  await service.close();
  rmSync(folder, { recursive: true, force: true });
}

async function step(request: StepRequest): Promise<StepOutcome> {
  const outcome = await runStep({ ...request, onOutput: (text) => process.stdout.write(text) });
  if (outcome.exitCode === 0) return outcome;
  throw new Error(`${request.action} ended with exit code ${String(outcome.exitCode)}`);
}

function title(text: string): void {
  console.log(`\n━━ ${text}`);
}
