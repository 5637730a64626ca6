import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificate {
  readonly key: Buffer;
  readonly cert: Buffer;
  /** File with the trusted certificates: this one and the earlier ones. */
  readonly caFile: string;
}

/** Creates a certificate for the loopback interface with the openssl command. */
export function makeCertificate(directory: string): Certificate {
  const key = join(directory, 'key.pem');
  const cert = join(directory, 'cert.pem');
  const caFile = join(directory, 'ca.pem');
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
      ...['-keyout', key, '-out', cert],
    ],
    { stdio: 'pipe' },
  );
  const trusted = process.env['NODE_EXTRA_CA_CERTS'];
  const others = trusted === undefined ? Buffer.alloc(0) : readFileSync(trusted);
  writeFileSync(caFile, Buffer.concat([readFileSync(cert), others]));
  return { key: readFileSync(key), cert: readFileSync(cert), caFile };
}
