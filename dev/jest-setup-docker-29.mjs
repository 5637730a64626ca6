import { goPart } from './go-parts.ts';
import setUp from './jest-setup.mjs';

/** Before the suites on Docker 29.7, so that none of them waits minutes for a build. */
export default async function setUpDocker29() {
  for (const part of ['dockerd', 'runc']) await goPart(part);
  await setUp();
}
