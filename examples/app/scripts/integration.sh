#!/bin/sh
# One of the test suites: runs the handed-over image.
docker run --rm --network=none "${IMAGE:-charon:local}" /charon "$(basename "$0" _integration.sh)"
