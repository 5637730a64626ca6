import { gunzipSync } from 'node:zlib';
import { messageOf } from '../base/errors.ts';
import { limits } from '../base/limits.ts';
import { formatBytes } from '../base/text.ts';
import type { HttpResponse } from './client.ts';

/** An answer that isn't a success. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly status: number;
  /** The service's own error code: twirp's `code`, Azure's `x-ms-error-code`, or a registry's words. */
  readonly serviceCode: string;
  /** How long the service wants the client to wait, in ms. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, serviceCode: string, message: string, retryAfterMs?: number) {
    super(message);
    this.status = status;
    this.serviceCode = serviceCode;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Whether an error is an answer with one of these statuses. */
export function hasStatus(error: unknown, ...statuses: readonly number[]): error is HttpError {
  return error instanceof HttpError && statuses.includes(error.status);
}

export interface Answer {
  readonly status: number;
  /** Returns a header's values, joined with commas; empty without one. */
  readonly header: (name: string) => string;
  readonly text: string;
}

/** Reads an answer to its end, as text. Throws HttpError when it is larger than any honest answer, or can't be unpacked. */
export async function readAnswer({ statusCode: status, headers, body }: HttpResponse): Promise<Answer> {
  const header = (name: string): string => [headers[name] ?? ''].flat().join(', ');
  const chunks: Buffer[] = [];
  let size = 0;
  const arriving: AsyncIterable<Buffer> = body;
  for await (const chunk of arriving) {
    size += chunk.length;
    if (size > limits.answerBytes)
      throw new HttpError(status, 'too-large', `an answer of more than ${formatBytes(limits.answerBytes)}`);
    chunks.push(chunk);
  }
  const whole = Buffer.concat(chunks);
  const isPacked = size > 0 && /^(?:x-)?gzip$/i.test(header('content-encoding'));
  try {
    const bytes = isPacked ? gunzipSync(whole, { maxOutputLength: limits.answerBytes }) : whole;
    return { status, header, text: bytes.toString() };
  } catch (error) {
    throw new HttpError(status, 'not-gzip', `an answer that can't be unpacked: ${messageOf(error)}`);
  }
}

/** Reads a small answer of the artifact service or its blob store. Throws HttpError unless the status is a success. */
export async function readText(response: HttpResponse): Promise<string> {
  const answer = await readAnswer(response);
  if (answer.status < 300) return answer.text;
  throw serviceError(answer);
}

/** Returns the error for an answer of the artifact service or its blob store. */
export function serviceError(answer: Answer): HttpError {
  const { status, header, text } = answer;
  const serviceCode = header('x-ms-error-code') || (/"code"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? '');
  const words = /"msg"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? serviceCode;
  return refusal(answer, serviceCode, `HTTP ${String(status)}${words === '' ? '' : ` (${words})`}`);
}

/** Returns the error for an answer that isn't a success. Only this function reads `Retry-After`. */
export function refusal({ status, header }: Omit<Answer, 'text'>, serviceCode: string, message: string): HttpError {
  return new HttpError(status, serviceCode, message, parseRetryAfter(header('retry-after')));
}

// Returns ms, or undefined if the header has neither seconds nor a date (RFC 9110, section 10.2.3).
function parseRetryAfter(header: string): number | undefined {
  const text = header.trim();
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : /^[a-z]+,? /i.test(text) ? Date.parse(text) - Date.now() : NaN;
  return Number.isNaN(ms) ? undefined : Math.max(ms, 0);
}
