import { setOutput } from '@actions/core';

/** Sets the step's outputs; a later call wins over an earlier one. */
export function setOutputs(outputs: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(outputs)) setOutput(name, value);
}
