import { stripTypeScriptTypes } from 'node:module';

// Node itself turns our TypeScript into JavaScript: it leaves out the types and changes nothing else.
export default {
  process: (source, path) => ({ code: path.endsWith('.ts') ? stripTypeScriptTypes(source) : source }),
};
