import type { Arena, Contender } from './contenders.ts';
import type { Heading, Race, Sample } from './measured.ts';
import { raceTable } from './tables.ts';
import { clientCpuSeconds, sh } from './world.ts';

/**
 * Runs the contenders in turns. Every second round reverses the order, so that a machine that slows down (because its disk queue
 * fills) slows all contenders equally. Each pair of rounds starts with a different contender.
 * @param prepare runs before each turn and isn't measured
 */
export async function race(
  heading: Heading,
  contenders: readonly Contender[],
  arena: Arena,
  prepare: () => Promise<void>,
): Promise<Race> {
  const samples = new Map<string, Sample[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 1; round <= heading.rounds; round += 1) {
    for (const contender of inTurn(contenders, round)) {
      await prepare();
      // Unwritten data of the previous turn would slow this one down.
      await sh({}, 'sync');
      samples.get(contender.name)?.push(await measure(contender, arena, String(round)));
    }
  }
  const day = new Date().toISOString().slice(0, 10);
  const result = { heading, day, series: [...samples].map(([name, all]) => ({ name, samples: all })) };
  console.log(`\n${raceTable(result)}`);
  return result;
}

function inTurn(contenders: readonly Contender[], round: number): readonly Contender[] {
  const first = Math.ceil(round / 2) % contenders.length;
  const turns = [...contenders.slice(first), ...contenders.slice(0, first)];
  return round % 2 === 1 ? turns : turns.reverse();
}

async function measure({ run }: Contender, arena: Arena, round: string): Promise<Sample> {
  const [cpuBefore, downloadedBefore, startedAt] = [
    clientCpuSeconds(),
    await arena.service.downloaded(),
    performance.now(),
  ];
  const peakMemoryKb = await run(arena, round);
  const ms = performance.now() - startedAt;
  return {
    ms,
    cpuSeconds: clientCpuSeconds() - cpuBefore,
    downloaded: (await arena.service.downloaded()) - downloadedBefore,
    ...(peakMemoryKb === undefined ? {} : { peakMemoryKb }),
  };
}
