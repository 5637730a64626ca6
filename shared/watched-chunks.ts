/** The same chunks; `onError` is told when they end with an error, which is passed on. */
export async function* watchedChunks(
  chunks: AsyncIterable<Buffer>,
  onError: (error: unknown) => void,
): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
  } catch (error) {
    onError(error);
    throw error;
  }
}
