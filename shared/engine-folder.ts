import { hostname } from 'node:os';

/** Where an engine stores images, if that is on this machine and can be looked at. */
export function engineFolder(engine: { readonly dataRoot: string; readonly hostName: string }): string | undefined {
  return engine.dataRoot === '' || engine.hostName !== hostname() ? undefined : engine.dataRoot;
}
