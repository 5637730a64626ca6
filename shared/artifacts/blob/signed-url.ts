/**
 * The same URL, once its signature is kept out of the log: in the form that the URL has it, which is the one that can be
 * printed, and as `URLSearchParams` writes it, if that is another.
 */
export function maskedUrl(url: string, maskSecret: (secret: string) => void): string {
  const signature = (text: string): string | undefined => /[?&]sig=([^&#]+)/.exec(text)?.[1];
  const { searchParams } = new URL(url);
  for (const form of new Set([signature(url), signature(`?${searchParams.toString()}`)])) {
    if (form !== undefined) maskSecret(form);
  }
  return url;
}
