import { build } from './build.ts';
import { lendEngines } from './engine-lender.ts';

/** Before suites that run the bundles or borrow engines. Other runs need neither. */
export default async function setUp() {
  // Each project calls it.
  if (globalThis.engineLender !== undefined) return;
  await build();
  globalThis.engineLender = await lendEngines();
  // Workers are started later, and inherit it.
  process.env.ENGINE_LENDER = globalThis.engineLender.url;
}
