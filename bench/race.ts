import type { Arena, Contender } from './contenders.ts';
import type { Heading, Race, Sample } from './measured.ts';
import { raceTable } from './tables.ts';
import { clientCpuSeconds, sh } from './world.ts';

/**
 * Lets contenders take turns; every second round goes back the way of the one before, so that a machine that gets slower, as
 * its disk fills its queue, slows down all alike; and each pair of rounds begins with another contender.
 * @param prepare done before each turn, not measured
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
      // What the one before has left to be written to the disk would slow down the next.
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
  const [cpu, down, began] = [clientCpuSeconds(), await arena.service.downloaded(), performance.now()];
  const peakMemoryKb = await run(arena, round);
  const ms = performance.now() - began;
  return {
    ms,
    cpuSeconds: clientCpuSeconds() - cpu,
    downloaded: (await arena.service.downloaded()) - down,
    ...(peakMemoryKb === undefined ? {} : { peakMemoryKb }),
  };
}
