import { X509Certificate } from 'node:crypto';
import { attempt, type HandoverError, invalidInput, messageOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import type { Log } from '../base/log.ts';
import { readSmallFile } from '../bytes/files.ts';
import { registryHost } from '../image/reference.ts';
import { type AskHelper, type Credentials, dockerCredentials, loginFolder, type LoginPlaces } from './logins.ts';
import { registryClient, type RegistryClient, type RegistryClientOptions } from './registry-client.ts';

export interface Registries extends AsyncDisposable {
  /**
   * Returns the registry of a repository.
   * @throws HandoverError `invalid-input` when docker's configuration or the certificate can't be read, `registry-failed`
   */
  readonly of: (repository: string) => Promise<RegistryClient>;
}

interface RegistriesOptions extends Omit<RegistryClientOptions, 'credentials' | 'authority' | 'onRetry'>, LoginPlaces {
  /** The login for all registries. If undefined, each registry gets the credentials that `docker login` has stored. */
  readonly login: { readonly username: string; readonly password: string } | undefined;
  /** Path of a certificate to trust in addition to the system's, in PEM. */
  readonly authorityPath: string | undefined;
  readonly askHelper: AskHelper;
  readonly log: Pick<Log, 'info' | 'notice'>;
}

export function registries(options: RegistriesOptions): Registries {
  const { login, authorityPath, log, maskSecret } = options;
  const clients = new Map<string, Promise<RegistryClient>>();
  const connect = async (host: string, folder: string): Promise<RegistryClient> => {
    const authority = authorityPath === undefined ? undefined : await readAuthority(authorityPath);
    const credentials: Credentials | undefined =
      login === undefined
        ? await dockerCredentials(host, { ...options, folder, onNotice: log.notice })
        : { kind: 'password', ...login };
    if (credentials !== undefined)
      maskSecret(credentials.kind === 'password' ? credentials.password : credentials.token);
    return registryClient(host, { ...options, onRetry: log.info, credentials, authority });
  };
  return {
    of: async (repository) => {
      const host = registryHost(repository);
      const folder = await loginFolder(options, repository);
      const key = `${host} ${folder}`;
      const client = clients.get(key) ?? connect(host, folder);
      clients.set(key, client);
      return client;
    },
    [Symbol.asyncDispose]: async () => {
      for (const client of await Promise.allSettled(clients.values()))
        if (client.status === 'fulfilled') await client.value[Symbol.asyncDispose]();
    },
  };
}

async function readAuthority(path: string): Promise<string> {
  const bytes = await readSmallFile(path, limits.settingsBytes).catch((error: unknown) => {
    throw unusable(path, messageOf(error));
  });
  const text = bytes.toString();
  if (!text.includes('-----BEGIN CERTIFICATE-----'))
    throw unusable(path, 'it has no line "-----BEGIN CERTIFICATE-----"');
  // Node ignores a certificate that it can't read.
  if (attempt(() => new X509Certificate(text), undefined) === undefined)
    throw unusable(path, 'it contains something that is no certificate');
  return text;
}

function unusable(path: string, why: string): HandoverError {
  return invalidInput(
    `The certificate in \`registry-ca\`, ${path}, can't be used: ${why}.`,
    'Give the path of a certificate in PEM, as docker has it in /etc/docker/certs.d/<registry>/ca.crt.',
  );
}
