import { DefaultArtifactClient } from '@actions/artifact';

// It serves GitHub's own address and refuses others; here that variable names the Git server of this machine.
process.env['GITHUB_SERVER_URL'] = 'https://github.com';

/** The official client of the artifact service, of this project's packages. */
export const client = new DefaultArtifactClient();
