#!/usr/bin/env bash
# Sees to what a build needs: Rust, which it only looks for, and a C compiler, which it installs where it may.
set -euo pipefail
if ! command -v cargo >/dev/null; then
  echo "missing: Rust 1.95 or newer; install it with rustup (rust-lang.org), or rustup update stable" >&2
  exit 1
fi
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
  echo "missing: rustfmt or clippy; run: rustup component add rustfmt clippy" >&2
  exit 1
fi
# librdkafka and the OpenSSL in it are built from source.
missing=()
for tool in gcc g++ make perl pkg-config; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy gcc g++ make perl pkg-config
else
  echo "missing: ${missing[*]}; run: sudo apt-get install gcc g++ make perl pkg-config" >&2
  exit 1
fi
