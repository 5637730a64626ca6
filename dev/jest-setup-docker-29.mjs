import { goPart } from './go-parts.ts';
import setUp from './jest-setup.mjs';

/** Builds Docker 29.7 before its suites, so none of them waits minutes for it. */
export default async function setUpDocker29() {
  for (const part of ['dockerd', 'runc']) await goPart(part);
  await setUp();
}
