import { startArtifactService, type ServiceOptions } from './service.ts';

// The stand-in as a process of its own, for benchmarks: prints one job's environment, then for each line of its input the
// bytes that went down and up so far, and ends with its input.
//   node main.ts '{"tls":true,"link":{"bytesPerSecond":1e8}}'
const options: ServiceOptions = JSON.parse(process.argv[2] ?? '{}');
const service = await startArtifactService(options);
console.log(JSON.stringify(service.env()));
process.stdin.on('data', () => {
  console.log(JSON.stringify(service.traffic));
});
process.stdin.on('end', () => void service.close().then(() => process.exit(0)));
