import { globSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import ts from 'typescript';

/**
 * The circles in which files import each other, types included.
 * @param root the folder that the files are in
 * @param folders those whose TypeScript files are looked at, below `root`
 * @returns each as one line, `a.ts → b.ts → a.ts`
 */
export function importCycles(root: string, folders: readonly string[]): readonly string[] {
  const files = folders.flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: root })).sort();
  const imports = new Map(files.map((file) => [file, importsOf(root, file)]));
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (file: string, way: readonly string[]): void => {
    const before = way.indexOf(file);
    if (before >= 0) cycles.push([...way.slice(before), file].join(' → '));
    if (before >= 0 || done.has(file)) return;
    for (const next of imports.get(file) ?? []) visit(next, [...way, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  return cycles;
}

function importsOf(root: string, file: string): readonly string[] {
  const { importedFiles } = ts.preProcessFile(readFileSync(join(root, file), 'utf8'));
  return importedFiles
    .filter(({ fileName }) => fileName.startsWith('.'))
    .map(({ fileName }) => posix.join(posix.dirname(file), fileName));
}
