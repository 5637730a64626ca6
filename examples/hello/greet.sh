#!/bin/sh
echo "Hello from the image that was handed over (version $(cat /app/version))."
