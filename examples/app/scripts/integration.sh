#!/bin/sh
# What each of the four suites is: it runs the image that was handed over.
docker run --rm --network=none "${CHARON_IMAGE:-charon:local}" /charon "$(basename "$0" _integration.sh)"
