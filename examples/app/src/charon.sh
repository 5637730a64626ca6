#!/bin/sh
echo "charon $(cat /version): ${1:-no suite}"
