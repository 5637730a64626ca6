import js from '@eslint/js';
import tseslint from 'typescript-eslint';

// The import rules define which code may know which other code. A test shows that each rule can fail.
const io = ['node:child_process', 'node:net', 'node:http', 'node:https', 'undici'];
const fs = ['node:fs', 'node:fs/promises'];
const toolkit = ['@actions/*'];
// The tag guard and the temporary tags run nothing themselves: they only use the engine that they receive.
const concrete = [
  '**/shared/docker/*',
  '!**/shared/docker/tag-guard.ts',
  '!**/shared/docker/engine-tags.ts',
  '**/shared/artifacts/*',
  // Reads a file and needs no service.
  '!**/shared/artifacts/on-disk.ts',
  '**/shared/cache/*',
  '**/shared/registry/*',
  '**/shared/runner/*',
  // Everything in this room except the pauses between attempts.
  '**/shared/http/*',
  '!**/shared/http/retry.ts',
];
const stories = ['export-image', 'load-image', 'publish-image', 'joined'];
// The joined action runs these two actions.
const joinedStories = ['export-image', 'load-image'];
const storyRooms = ['plan', 'source', 'into'];
// The files of load-image/into that other rooms may import.
const intoDoors = ['into-holders', 'prove'];

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
    { object: 'process', property: 'env', message: 'Only shared/runner reads the environment.' },
  ],
};
const pure = rule(
  [
    [toolkit, 'This room is pure.'],
    [[...io, ...fs, 'node:os'], 'This room is pure.'],
    [concrete, 'This room is pure.', { allowTypeImports: true }],
  ],
  noEnvironment,
);
const commands = [['@actions/exec', '@actions/io', 'node:child_process'], 'Only shared/docker runs commands.'];
const network = [
  ['undici', 'node:http', 'node:https', 'node:net'],
  'Only shared/http uses the network, and shared/docker to connect to engines.',
];
const officialClient = [['@actions/artifact'], 'Only shared/artifacts uses the official client.'];
const theRunner = [['@actions/core'], 'Only shared/runner communicates with the runner.'];

const syntax = [
  { selector: 'TSEnumDeclaration', message: 'Use a union type.' },
  { selector: 'ExportDefaultDeclaration', message: 'Use a named export.' },
];
// The behaviour of a store is described by facts in shared/image/image-store.ts.
const comparedStores = [
  'BinaryExpression > Literal[value="classic"]',
  'SwitchCase > Literal[value="classic"]',
  ':matches(BinaryExpression, SwitchCase) > MemberExpression[object.name="imageStores"]',
].map((selector) => ({ selector, message: 'Use a fact of the image store.' }));

// The rooms of shared/ that each room may import. Each room in `words` may import those on its left.
const words = ['base', 'bytes', 'image', 'tar', 'layout'];
const mayImport = {
  ...Object.fromEntries(words.map((room, at) => [room, words.slice(0, at)])),
  http: ['base', 'bytes'],
  'handed-over': [...words.filter((room) => room !== 'layout'), 'http', 'artifacts'],
  docker: [...words, 'http'],
  artifacts: [...words, 'http'],
  cache: [...words.filter((room) => !['tar', 'layout'].includes(room)), 'http', 'artifacts'],
  registry: [...words, 'http'],
  runner: [...words, 'http'],
};
const notFromOthers = (room) => [
  Object.keys(mayImport)
    .filter((other) => other !== room && !mayImport[room].includes(other))
    .map((other) => `**/${other}/**`),
  `shared/${room} imports only ${mayImport[room].join(', ') || 'no other room'} (CONTRIBUTING.md, "Where things are").`,
];
const insideOf = (room, ...groups) => ({
  files: [`shared/${room}/**/*.ts`],
  rules: rule([...groups, notFromOthers(room)]),
});

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/', 'coverage/', '**/*.{mjs,cjs}'] },
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
      'no-restricted-syntax': ['error', ...syntax],
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
      eqeqeq: 'error',
    },
  },
  {
    files: ['{export-image,load-image,publish-image,joined,shared}/**/*.ts'],
    rules: { 'no-restricted-syntax': ['error', ...syntax, ...comparedStores] },
  },
  {
    files: ['{export-image,load-image,publish-image,joined}/main.ts'],
    rules: rule([[[...io, ...fs, ...toolkit], 'An entry file only connects parts.']], noEnvironment),
  },
  {
    files: ['{export-image,load-image,publish-image,joined}/**/*.ts'],
    ignores: ['**/main.ts'],
    rules: rule(
      [
        [toolkit, 'The code of an action uses no toolkit.'],
        [io, 'The code of an action runs no programs and opens no connections.'],
        [concrete, 'The code of an action knows only interfaces.', { allowTypeImports: true }],
      ],
      noEnvironment,
    ),
  },
  {
    // The engine fetches from a server in this room, over the loopback interface.
    files: ['load-image/into/*.ts'],
    rules: rule(
      [
        [toolkit, 'The code of an action uses no toolkit.'],
        [
          ['node:child_process', 'node:net', 'undici'],
          'The code of an action runs no programs and opens no connections.',
        ],
        [concrete, 'The code of an action knows only interfaces.', { allowTypeImports: true }],
        [['../*.ts', '../plan/*'], 'Loading into holders is independent of the rest of the action.'],
      ],
      noEnvironment,
    ),
  },
  {
    files: [
      '{export-image,load-image,publish-image,joined}/plan/*.ts',
      '{export-image,load-image,publish-image,joined}/{inputs,outputs,summary}.ts',
    ],
    rules: pure,
  },
  ...stories.map((story) => ({
    files: [`${story}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            story === 'joined'
              ? {
                  group: [
                    '**/publish-image/**',
                    ...joinedStories.flatMap((other) => storyRooms.map((room) => `**/${other}/${room}/**`)),
                    ...joinedStories.map((other) => `!**/${other}/plan/plan.ts`),
                  ],
                  message: 'The joined action imports only the doors of export-image and load-image.',
                }
              : {
                  group: stories.filter((other) => other !== story).map((other) => `**/${other}/**`),
                  message: 'No action imports files of another action.',
                },
            {
              group: ['**/into/*', ...intoDoors.map((door) => `!**/into/${door}.ts`)],
              message: 'Only the doors of a room are imported from outside.',
            },
          ],
        },
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
            { group: stories.map((story) => `**/${story}/**`), message: 'shared imports nothing from the actions.' },
          ],
        },
      ],
    },
  },
  ...['base', 'bytes', 'layout'].map((room) => insideOf(room, commands, network, officialClient, theRunner)),
  ...['image', 'tar'].map((room) =>
    insideOf(room, commands, network, officialClient, theRunner, [fs, 'This room uses no files.']),
  ),
  {
    // A lock on this host is a socket, which also identifies its holder.
    files: ['shared/bytes/locks.ts'],
    rules: rule([commands, theRunner, notFromOthers('bytes')]),
  },
  {
    files: ['shared/handed-over/*.ts'],
    rules: rule([
      commands,
      network,
      theRunner,
      [fs, 'This room uses no files.'],
      [['**/artifacts/**'], 'This room knows only the interface of artifacts.', { allowTypeImports: true }],
      notFromOthers('handed-over'),
    ]),
  },
  insideOf('http', commands, officialClient, theRunner),
  insideOf('docker', network, officialClient, theRunner),
  {
    // Connects to the API of engines.
    files: ['shared/docker/api.ts'],
    rules: rule([
      [['undici', 'node:net'], 'Engines are used through one HTTP client.'],
      ...[commands, officialClient, theRunner, notFromOthers('docker')],
    ]),
  },
  insideOf('artifacts', commands, network, theRunner),
  insideOf('cache', commands, network, officialClient, theRunner, [fs, 'This room uses no files.']),
  insideOf('registry', commands, network, officialClient, theRunner),
  {
    files: ['shared/runner/*.ts'],
    rules: rule([commands, network, officialClient, notFromOthers('runner')], { 'no-restricted-properties': 'off' }),
  },
  {
    files: ['__tests__/**/*.ts', 'dev/**/*.ts', 'bench/**/*.ts'],
    rules: { 'max-lines-per-function': 'off', 'no-restricted-properties': 'off' },
  },
  {
    // Tests read the output of programs, and destructure the functions of a scenario.
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
