import { HandoverError } from '../base/errors.ts';
import { quoteForeign } from '../base/text.ts';

export interface Proxy {
  /** The exact name of the environment's variable. */
  readonly variable: string;
  readonly value: string;
}

/** The proxies of the environment, one for the URLs of each scheme. */
export interface Proxies {
  readonly http?: Proxy | undefined;
  readonly https?: Proxy | undefined;
  /** The hosts that are reached without a proxy, as in `no_proxy`. */
  readonly except: string;
}

/** Reads the proxies from variables in lower or upper case. `variable` returns a variable's text, or '' if it isn't set. */
export function proxiesOf(variable: (name: string) => string): Proxies {
  const first = (...names: readonly string[]): Proxy | undefined => {
    const name = names.find((each) => variable(each).trim() !== '');
    return name === undefined ? undefined : { variable: name, value: variable(name) };
  };
  return {
    http: first('http_proxy', 'HTTP_PROXY'),
    https: first('https_proxy', 'HTTPS_PROXY'),
    except: variable('no_proxy') || variable('NO_PROXY'),
  };
}

/** Whether a host, with or without a port, is this machine's loopback interface. */
export function isLoopback(host: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/i.test(host);
}

/**
 * Returns the URL of a proxy. Without a scheme, it is http, as for curl and the runner's own client (actions/toolkit,
 * http-client/src/proxy.ts).
 * @throws HandoverError `unsupported-host` when it can't be used
 */
export function proxyUrl({ variable, value }: Proxy): string {
  const text = value.trim();
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  if (url !== null && ['http:', 'https:'].includes(url.protocol)) return url.href;
  const shown = quoteForeign(text.replace(/\/\/.*@/, '//***@'), 100);
  throw new HandoverError(
    'unsupported-host',
    `The environment variable ${variable} names the proxy "${shown}"; expected http://HOST:PORT or https://HOST:PORT.`,
    `Set ${variable} on the runner to such a proxy, or remove it; list hosts that need none in no_proxy.`,
  );
}
