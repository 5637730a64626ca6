import { createInterface } from 'node:readline';
import { type ServiceOptions, startArtifactService } from './service.ts';

// Runs the fake in a separate process, for benchmarks. Prints the environment of one job. Then answers each line of its input
// with the bytes downloaded and uploaded so far, and exits when its input ends. `keep` protects the current artifacts. `forget`
// removes the content of all others, which would otherwise fill the machine's memory.
//   node main.ts '{"tls":true,"link":{"bytesPerSecond":1e8}}'
const options: ServiceOptions = JSON.parse(process.argv[2] ?? '{}');
const service = await startArtifactService(options);
console.log(JSON.stringify(service.env()));
const kept = new Set<string>();
for await (const line of createInterface({ input: process.stdin })) {
  const blobs = service.artifacts.map(({ blob }) => blob).filter(service.blobs.exists);
  if (line === 'keep') for (const blob of blobs) kept.add(blob);
  if (line === 'forget') await Promise.all(blobs.filter((blob) => !kept.has(blob)).map(service.blobs.remove));
  console.log(JSON.stringify(service.traffic));
}
await service.close();
process.exit(0);
