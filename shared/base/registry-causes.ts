// Causes of registry failures, with hints: one table for the messages of docker's commands and of this project's client.

interface Row {
  readonly words: RegExp;
  readonly statuses?: readonly number[];
  /** Whether another attempt would fail in the same way. */
  readonly permanent: boolean;
  /** Whether the registry lacks a blob that it reported as present. */
  readonly isBlobLost?: true;
  readonly hint: string;
}

// Words: distribution-spec, "Error Codes"; docker's, containerd's and BuildKit's messages; Node's and OpenSSL's codes; what Amazon ECR,
// Azure, Harbor and Quay return for immutable tags and quotas. The first matching row counts.
const rows: readonly Row[] = [
  {
    words: /\btoo ?many ?requests\b|\brate limit\b/i,
    statuses: [429],
    permanent: false,
    hint: 'The registry has a rate limit: run the job again later, or use an account with a higher limit.',
  },
  {
    words: /immutab|cannot be overwritten|tag \S* ?already ?exists|operation is disallowed/i,
    statuses: [409],
    permanent: true,
    hint: 'This tag was set before and can’t be moved, or is locked: give a tag of its own to each commit, such as `sha-<commit>`, or allow it in the registry.',
  },
  {
    words: /\bquota\b|exceed the configured upper limit|insufficient storage|no space left/i,
    statuses: [507],
    permanent: true,
    hint: 'The registry has no room left for this repository: remove images there, or raise its quota.',
  },
  {
    words: /\brefused by another host\b/,
    permanent: false,
    hint: 'The registry sent this request to another host, which gets no login and refused it: run the step again, and look at the storage behind the registry.',
  },
  {
    words:
      /\b(?:unauthorized|forbidden|denied|no basic auth credentials|authorization failed|authentication required|insufficient_scope)\b/i,
    statuses: [401, 403],
    permanent: true,
    hint:
      'Log in before this step (`docker/login-action`); ghcr.io also needs `permissions: packages: write` to push and ' +
      '`packages: read` to pull.',
  },
  {
    isBlobLost: true,
    words: /\bblob[_ ]unknown\b|\bunknown blob\b|\bblob upload[_ ]unknown\b|\bBLOB_UPLOAD_/i,
    permanent: false,
    hint: 'The registry has lost a part of the image, or of its upload: run the step again, and look at its storage, its garbage collection and the load balancer before it.',
  },
  {
    words: /x509|\bcertificate|\bCERT_|SELF_SIGNED|UNABLE_TO_|ERR_TLS_/i,
    permanent: true,
    hint: 'Trust the registry’s certificate authority: with publish-image in `registry-ca`, with docker in /etc/docker/certs.d/<registry>/ca.crt.',
  },
  {
    words:
      /connection (?:refused|reset)|no such host|i\/o timeout|broken pipe|network is unreachable|no route to host|\bEOF\b|server gave HTTP response|\bE(?:CONN|AI_|PIPE|NOTFOUND|TIMEDOUT|HOST|NET)|\bUND_ERR_|\bHPE_|ERR_SSL_|\bEPROTO\b|took longer than/i,
    statuses: [408],
    permanent: false,
    hint: 'There is no usable registry at that address: check the registry’s host and port, that it is running, and that this runner can reach it (a service of the job, a VPN, `HTTPS_PROXY`).',
  },
  {
    words: /too large\b|\bSIZE_INVALID\b/i,
    statuses: [413],
    permanent: true,
    hint: 'Something limits the size of a request: raise it in the registry or the proxy before it (nginx: `client_max_body_size 0`), or split the largest layer.',
  },
  {
    words: /unsupported media ?type|media type .*(?:not|un)|\bMANIFEST_INVALID\b|\bmanifest invalid\b/i,
    statuses: [415],
    permanent: true,
    hint: 'The registry doesn’t take images in this format (OCI or Docker manifests, zstd layers): see its documentation, or export the image with `compression: gzip`.',
  },
  {
    words: /stopped after \d+ redirects/i,
    statuses: [301, 302, 303, 307, 308],
    permanent: true,
    hint: 'The registry redirects this request to another address: use the registry’s own address.',
  },
  {
    words: /\bno matching manifest\b/i,
    permanent: true,
    hint: 'The image there isn’t made for this platform: push it for this one too (`push-platforms`), or use a runner of its platform.',
  },
  {
    words: /\bread back\b/i,
    permanent: false,
    hint: 'The registry took the manifest but doesn’t return it: run the step again, and look at its storage or replication.',
  },
  {
    words: /\bmanifest[_ ]unknown\b|\bname[_ ]unknown\b|\bnot[_ ]found\b|does not exist|not known to registry/i,
    statuses: [404],
    permanent: true,
    hint: 'Check the spelling of registry, repository and tag; some registries, such as Amazon ECR, want the repository to be created before the first push.',
  },
  {
    words: /\bUNSUPPORTED\b|\bread[- ]only\b|method not allowed/i,
    statuses: [405, 501],
    permanent: true,
    hint: 'The registry takes no pushes at this address: it may be read-only for now, or a mirror of another registry.',
  },
  {
    words: /\binvalid reference\b|\b(?:name|tag|digest)[_ ]invalid\b|\bbad request\b/i,
    statuses: [400, 422],
    permanent: true,
    hint: 'The registry doesn’t accept the name or the content: see its words in the message, and its rules for repositories and tags.',
  },
  {
    words: /\bserver error\b|\bbad gateway\b|\bservice unavailable\b|\bgateway time-?out\b/i,
    statuses: [500, 502, 503, 504],
    permanent: false,
    hint: 'The registry itself fails: check its status page or its log, and run the job again.',
  },
];

const other: Omit<Row, 'words' | 'statuses'> = {
  permanent: false,
  hint: 'See the registry’s message. Its log may show more.',
};

/**
 * @param words the message of the failure, without names that users choose
 * @param status the HTTP status; undefined searches the message for it
 */
export function explainRegistry(words: string, status = statusIn(words)): typeof other {
  return rows.find((row) => row.words.test(words) || (status !== undefined && row.statuses?.includes(status))) ?? other;
}

// docker, containerd and BuildKit: "unexpected status from PUT request to <url>: 400 Bad Request", "received unexpected HTTP status: 500".
function statusIn(words: string): number | undefined {
  const found = /(?:\bHTTP(?: status)?:? |\bstatus(?: code)?:? |\brequest to\s*:?\s*)([345]\d\d)\b/i.exec(words)?.[1];
  return found === undefined ? undefined : Number(found);
}
