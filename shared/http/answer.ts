import { gunzipSync } from 'node:zlib';
import { messageOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { formatBytes } from '../base/text.ts';
import type { HttpResponse } from './client.ts';

/** A request to the artifact service or its blob store that was answered with something other than success. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly status: number;
  /** The service's own error code: twirp's `code` or Azure's `x-ms-error-code`. */
  readonly serviceCode: string;
  /** How long the service asked to wait, in ms, if it did. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, serviceCode: string, message: string, retryAfterMs?: number) {
    super(message);
    this.status = status;
    this.serviceCode = serviceCode;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The body of an answer as text. Throws `HttpError` when there is more of it than an honest service has to say. */
export async function textOf(response: HttpResponse): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  const body: AsyncIterable<Buffer> = response.body;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > limits.answerBytes)
      throw new HttpError(
        response.statusCode,
        'too-large',
        `an answer of more than ${formatBytes(limits.answerBytes)}`,
      );
    chunks.push(chunk);
  }
  const whole = Buffer.concat(chunks);
  const coding = String(response.headers['content-encoding'] ?? '');
  if (size === 0 || !/^(?:x-)?gzip$/i.test(coding)) return whole.toString();
  try {
    return gunzipSync(whole, { maxOutputLength: limits.answerBytes }).toString();
  } catch (error) {
    throw new HttpError(response.statusCode, 'not-gzip', `an answer that can't be unpacked: ${messageOf(error)}`);
  }
}

/** Reads a whole, small answer. Throws `HttpError` unless the status is a success. */
export async function readText(response: HttpResponse): Promise<string> {
  const text = await textOf(response);
  if (response.statusCode < 300) return text;
  throw httpError(response, text);
}

/** The error for an answer that isn't a success; `text` is its body. */
export function httpError(response: HttpResponse, text: string): HttpError {
  const header = (name: string): string => String(response.headers[name] ?? '');
  const serviceCode = header('x-ms-error-code') || (/"code"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? '');
  const message = /"msg"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? serviceCode;
  return new HttpError(
    response.statusCode,
    serviceCode,
    `HTTP ${String(response.statusCode)}${message === '' ? '' : ` (${message})`}`,
    parseRetryAfter(header('retry-after')),
  );
}

const longestRetryAfterMs = 60_000;

/**
 * Returns how long a `Retry-After` header asks to wait, in ms, at most a minute; undefined when it is neither a number of seconds nor
 * a date (RFC 9110, section 10.2.3).
 */
export function parseRetryAfter(header: string, now = Date.now()): number | undefined {
  const text = header.trim();
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : /^[a-z]+,? /i.test(text) ? Date.parse(text) - now : NaN;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), longestRetryAfterMs);
}
