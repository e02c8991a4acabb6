#!/usr/bin/env bash
# Sees to the compilers and libraries that a build needs: installs them as root on Debian or Ubuntu, else says what is missing.
set -euo pipefail
missing=()
for tool in gcc g++ make perl pkg-config cmake; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy gcc g++ make perl pkg-config cmake
else
  echo "missing: ${missing[*]}; run: sudo apt-get install gcc g++ make perl pkg-config cmake" >&2
  exit 1
fi
