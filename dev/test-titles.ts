import ts from 'typescript';

const idPattern = /\b(?:B|C|S\d)\.\d+\b/g;

/** A test, describe or table row with numbers of requirements in its title. */
export interface Citation {
  readonly title: string;
  readonly ids: readonly string[];
}

/**
 * Returns the citations in a test file's titles, in order. If the title of an `each` has no number, the first text of each row is
 * read. Skipped and todo tests are left out, because they prove nothing.
 * @param source TypeScript text of the file
 */
export function citationsOf(source: string): readonly Citation[] {
  const found: Citation[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node)) {
      const names = calleeNames(node.expression);
      if (/^(?:test|it|describe)$/.test(names[0] ?? '')) {
        if (names.some((name) => name === 'skip' || name === 'todo')) return;
        found.push(...citationsOfCall(node));
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('test.ts', source, ts.ScriptTarget.Latest));
  return found;
}

/** Returns the citations in the titles of end-to-end scenarios, in order. */
export function citationsOfScenarios(source: string): readonly Citation[] {
  const found: Citation[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isPropertyAssignment(node) && ts.isIdentifier(node.name) && node.name.text === 'title')
      found.push(...cite(textOf(node.initializer) ?? ''));
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('scenario.ts', source, ts.ScriptTarget.Latest));
  return found;
}

function citationsOfCall(call: ts.CallExpression): readonly Citation[] {
  const title = textOf(call.arguments[0]);
  if (title === undefined) return [];
  const citations = cite(title);
  if (citations.length > 0 || !ts.isCallExpression(call.expression)) return citations;
  return rowTexts(call.expression.arguments[0]).flatMap((text) => cite(title.replace(/%[sj]/, text)));
}

function cite(title: string): readonly Citation[] {
  const ids = [...new Set(title.match(idPattern) ?? [])];
  return ids.length === 0 ? [] : [{ title, ids }];
}

/** Splits a callee such as `test.each(…)` or `test.only` into its names. */
function calleeNames(callee: ts.Expression): readonly string[] {
  if (ts.isIdentifier(callee)) return [callee.text];
  if (ts.isPropertyAccessExpression(callee)) return [...calleeNames(callee.expression), callee.name.text];
  return ts.isCallExpression(callee) ? calleeNames(callee.expression) : [];
}

function rowTexts(table: ts.Expression | undefined): readonly string[] {
  if (table !== undefined && (ts.isAsExpression(table) || ts.isSatisfiesExpression(table))) {
    return rowTexts(table.expression);
  }
  if (table === undefined || !ts.isArrayLiteralExpression(table)) return [];
  return table.elements
    .map((row) => textOf(ts.isArrayLiteralExpression(row) ? row.elements[0] : row))
    .filter((text) => text !== undefined);
}

function textOf(node: ts.Node | undefined): string | undefined {
  return node !== undefined && ts.isStringLiteralLike(node) ? node.text : undefined;
}
