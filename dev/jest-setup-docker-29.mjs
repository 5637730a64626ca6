import { goPart } from './go-parts.ts';

/** Before the tests on Docker 29.7 begin, so that none of them waits minutes for a build. */
export default async function bringDocker29() {
  for (const part of ['dockerd', 'runc']) await goPart(part);
}
