import { build } from './build.ts';
import { lendEngines } from './engine-lender.ts';

/** Prepares bundles and engines for the suites that need them. */
export default async function setUp() {
  // Called once for each project.
  if (globalThis.engineLender !== undefined) return;
  await build();
  globalThis.engineLender = await lendEngines();
  // Workers start later and inherit this variable.
  process.env.ENGINE_LENDER = globalThis.engineLender.url;
}
