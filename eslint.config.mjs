import js from '@eslint/js';
import tseslint from 'typescript-eslint';

// The import rules are those of the house: who may know what. Each has a test that sees it fail.
const io = ['node:child_process', 'node:net', 'node:http', 'node:https', 'undici'];
const fs = ['node:fs', 'node:fs/promises'];
const toolkit = ['@actions/*'];

const rule = (groups, extra = {}) => ({
  '@typescript-eslint/no-restricted-imports': [
    'error',
    { patterns: groups.map(([group, message, options = {}]) => ({ group, message, ...options })) },
  ],
  ...extra,
});
const noEnvironment = {
  'no-restricted-properties': [
    'error',
    { object: 'process', property: 'env', message: 'Only shared/action reads the environment.' },
  ],
};
const base = [
  [['@actions/exec', '@actions/io', 'node:child_process'], 'Only shared/docker runs commands.'],
  [
    ['@actions/artifact', 'undici', 'node:http', 'node:https', 'node:net'],
    'Only shared/artifacts talks to the network.',
  ],
  [['@actions/core'], 'Only shared/action talks to the runner.'],
];
const without = (...names) => base.filter(([group]) => !group.some((name) => names.includes(name)));
const actionsApart = [
  ['export-image', ['**/load-image/**', '**/handover/**']],
  ['load-image', ['**/export-image/**', '**/handover/**']],
];

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/', 'coverage/', '**/*.mjs'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/consistent-type-assertions': ['error', { assertionStyle: 'never' }],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreVoidOperator: true, ignoreArrowShorthand: true },
      ],
      '@typescript-eslint/dot-notation': 'off',
      '@typescript-eslint/consistent-indexed-object-style': 'off',
      'no-restricted-syntax': [
        'error',
        { selector: 'TSEnumDeclaration', message: 'Use a union type.' },
        { selector: 'ExportDefaultDeclaration', message: 'Use a named export.' },
      ],
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
      eqeqeq: 'error',
    },
  },
  {
    files: ['{export-image,load-image,handover}/main.ts'],
    rules: rule([[[...io, ...fs, ...toolkit], 'An entry only wires.']], noEnvironment),
  },
  {
    files: ['{export-image,load-image,handover}/*.ts'],
    ignores: ['**/main.ts'],
    rules: rule(
      [
        [toolkit, 'A story knows no toolkit.'],
        [io, 'A story runs nothing and talks to nobody.'],
        [
          ['**/shared/docker/*', '**/shared/artifacts/*', '**/shared/action/*'],
          'A story knows interfaces only.',
          { allowTypeImports: true },
        ],
      ],
      noEnvironment,
    ),
  },
  {
    files: [
      '{export-image,load-image,handover}/{inputs,run-inputs,plan,run-plan,tag-plan,push-plan,compression,verify,outputs,summary,build-arguments,unsealed-record,images-inputs,images-plan,images-summary,image-mapping,loads-at-once}.ts',
    ],
    rules: rule(
      [
        [toolkit, 'This file is pure.'],
        [[...io, ...fs, 'node:os'], 'This file is pure.'],
        [
          ['**/shared/docker/*', '**/shared/artifacts/*', '**/shared/action/*'],
          'This file is pure.',
          { allowTypeImports: true },
        ],
      ],
      noEnvironment,
    ),
  },
  ...actionsApart.map(([action, others]) => ({
    files: [`${action}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: [{ group: others, message: 'The actions know nothing of each other.' }] },
      ],
    },
  })),
  {
    files: ['shared/**/*.ts'],
    rules: {
      ...noEnvironment,
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { group: ['**/export-image/**', '**/load-image/**', '**/handover/**'], message: 'shared knows no action.' },
          ],
        },
      ],
    },
  },
  { files: ['shared/*.ts'], rules: rule(base) },
  // Its socket is a lock on this host; nobody talks through it.
  { files: ['shared/path-lock.ts'], rules: rule(without('node:net')) },
  {
    files: ['shared/image/*.ts'],
    rules: rule([...base, [fs, 'This file is pure; only readers and writers of tarballs and layouts touch files.']]),
  },
  {
    files: ['shared/image/{oci-layout,oci-layout-writer,arriving-layers,layer-file}.ts'],
    rules: rule(base),
  },
  {
    files: ['shared/docker/*.ts'],
    rules: rule([...without('@actions/exec'), [['**/artifacts/*', '**/action/*'], 'shared/docker knows docker only.']]),
  },
  {
    // The engine fetches from one over the loopback interface; a command writes to the other, a socket in a folder.
    files: ['shared/docker/loopback-registry.ts', 'shared/docker/reused-socket.ts'],
    rules: rule([
      ...without('@actions/exec', '@actions/artifact'),
      [
        ['@actions/*', 'undici', 'node:child_process', '**/artifacts/*', '**/action/*'],
        'shared/docker knows docker only.',
      ],
    ]),
  },
  {
    files: ['shared/artifacts/*.ts'],
    rules: rule([
      ...without('@actions/artifact'),
      [['**/docker/*', '**/action/*'], 'shared/artifacts knows the service only.'],
    ]),
  },
  {
    files: ['shared/action/*.ts'],
    rules: rule(
      [...without('@actions/core'), [['**/docker/*', '**/artifacts/*'], 'shared/action knows the runner only.']],
      { 'no-restricted-properties': 'off' },
    ),
  },
  {
    files: ['__tests__/**/*.ts', 'dev/**/*.ts', 'bench/**/*.ts'],
    rules: { 'max-lines-per-function': 'off', 'no-restricted-properties': 'off' },
  },
  {
    // Tests read what programs print, and take a scenario's functions apart.
    files: ['__tests__/**/*.ts'],
    rules: {
      'max-lines': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
    },
  },
);
