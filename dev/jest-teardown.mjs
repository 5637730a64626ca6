/** Stops the engines after the last suite. */
export default async function tearDown() {
  const lender = globalThis.engineLender;
  delete globalThis.engineLender;
  await lender?.close();
}
