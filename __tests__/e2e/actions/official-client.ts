import { DefaultArtifactClient } from '@actions/artifact';

// The client accepts only GitHub's own address, but here the variable is the address of the local Git server.
process.env['GITHUB_SERVER_URL'] = 'https://github.com';

export const client = new DefaultArtifactClient();
