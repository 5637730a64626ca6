import { HandoverError } from '../base/errors.ts';
import { formatPlatform } from '../image/platform.ts';
import type { EngineInfo } from './output.ts';

const architectures = ['amd64', 'arm64'];

/**
 * The engine that was given, if it runs what can be handed over: Linux containers on amd64 or arm64.
 * @throws HandoverError `unsupported-host` naming what it runs
 */
export function requireSupportedEngine(info: EngineInfo): EngineInfo {
  const { os, architecture } = info.platform;
  if (os === 'linux' && architectures.includes(architecture)) return info;
  throw new HandoverError(
    'unsupported-host',
    `The engine${info.hostName === '' ? '' : ` on ${info.hostName}`} runs ${formatPlatform(info.platform)} containers; ` +
      'this action needs Linux containers on amd64 or arm64.',
    'Use a runner such as ubuntu-latest (amd64) or ubuntu-24.04-arm (arm64).',
  );
}
