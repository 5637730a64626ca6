/** The line of YAML that helps with every shortcoming of a builder. */
export const setupBuildxHint = 'Add this step before it: `- uses: docker/setup-buildx-action@v4`.';
