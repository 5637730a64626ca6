#!/bin/sh
# One of the test suites: runs the handed-over image.
docker run --rm --network=none "${CHARON_IMAGE:-charon:local}" /charon "$(basename "$0" _integration.sh)"
