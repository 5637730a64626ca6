import type { Shape } from '../base/strict-json.ts';

// The shapes of the documents that define an image, as in the engines' structs. Members without a struct field are unknown.
// Sources: OCI image-spec 1.1 (specs-go/v1); moby daemon/internal/image/image.go, api/types/container/config.go and
// daemon/internal/image/tarexport; docker-image-spec 1.3 (specs-go/v1).

const strings: Shape = { items: 'string' };
const stringMap: Shape = { values: 'string' };
/** A Go set: only its member names matter. */
const names: Shape = { values: { members: {} } };

const platform: Readonly<Record<string, Shape>> = {
  architecture: 'string',
  os: 'string',
  'os.version': 'string',
  'os.features': strings,
  variant: 'string',
};

const descriptor: Shape = {
  members: {
    mediaType: 'string',
    digest: 'string',
    size: 'integer',
    urls: strings,
    annotations: stringMap,
    data: 'string',
    platform: { members: platform },
    artifactType: 'string',
  },
};

/** A manifest or an index. The shape has the members of both, so that a document can't be both. */
export const manifestShape: Shape = {
  members: {
    schemaVersion: 'integer',
    mediaType: 'string',
    artifactType: 'string',
    config: descriptor,
    layers: { items: descriptor },
    manifests: { items: descriptor },
    subject: descriptor,
    annotations: stringMap,
    fsLayers: 'any',
  },
};

const containerConfig: Shape = {
  members: {
    Hostname: 'string',
    Domainname: 'string',
    User: 'string',
    AttachStdin: 'boolean',
    AttachStdout: 'boolean',
    AttachStderr: 'boolean',
    ExposedPorts: names,
    Tty: 'boolean',
    OpenStdin: 'boolean',
    StdinOnce: 'boolean',
    Env: strings,
    Cmd: strings,
    Healthcheck: {
      members: {
        Test: strings,
        Interval: 'integer',
        Timeout: 'integer',
        StartPeriod: 'integer',
        StartInterval: 'integer',
        Retries: 'integer',
      },
    },
    ArgsEscaped: 'boolean',
    Image: 'string',
    Volumes: names,
    WorkingDir: 'string',
    Entrypoint: strings,
    NetworkDisabled: 'boolean',
    MacAddress: 'string',
    OnBuild: strings,
    Labels: stringMap,
    StopSignal: 'string',
    StopTimeout: 'integer',
    Shell: strings,
  },
};

export const configShape: Shape = {
  members: {
    ...platform,
    id: 'string',
    parent: 'string',
    comment: 'string',
    created: 'string',
    container: 'string',
    container_config: containerConfig,
    docker_version: 'string',
    author: 'string',
    config: containerConfig,
    rootfs: { members: { type: 'string', diff_ids: strings } },
    history: {
      items: {
        members: {
          created: 'string',
          created_by: 'string',
          author: 'string',
          comment: 'string',
          empty_layer: 'boolean',
        },
      },
    },
  },
};

/** A Docker archive's manifest.json. */
export const archiveShape: Shape = {
  items: {
    members: {
      Config: 'string',
      RepoTags: strings,
      Layers: strings,
      Parent: 'string',
      LayerSources: { values: descriptor },
    },
  },
};
