import { type ExportInputs, readExportInputs } from '../export-image/inputs.ts';
import { type LoadInputs, readLoadInputs } from '../load-image/inputs.ts';
import type { Inputs } from '../shared/runner/inputs.ts';

/** The inputs of both actions; `tarball` is the export's, a load keeps none. */
export interface HandoverInputs {
  readonly export: ExportInputs;
  readonly load: LoadInputs;
}

/** @throws HandoverError `invalid-input` */
export function readHandoverInputs(inputs: Inputs): HandoverInputs {
  return { export: readExportInputs(inputs), load: { ...readLoadInputs(inputs), tarball: undefined } };
}
