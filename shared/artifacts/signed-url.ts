/** The same URL, once its signature is kept out of the log. */
export function maskedUrl(url: string, maskSecret: (secret: string) => void): string {
  const signature = new URL(url).searchParams.get('sig');
  if (signature !== null) maskSecret(signature);
  return url;
}
