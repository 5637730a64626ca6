import { stripTypeScriptTypes } from 'node:module';

// Node strips the types and changes nothing else.
export default {
  process: (source, path) => ({ code: path.endsWith('.ts') ? stripTypeScriptTypes(source) : source }),
};
