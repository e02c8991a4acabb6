#!/usr/bin/env bash
# Looks for what a build needs, and installs a C compiler, make and perl where it may: as root, with
# apt. Rust it only looks for. Where something is missing, the command that installs it is printed.
set -euo pipefail
if ! command -v cargo >/dev/null; then
  echo "missing: Rust 1.95 or newer; get rustup (rust-lang.org), or run: rustup update stable" >&2
  exit 1
fi
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
  echo "missing: rustfmt or clippy; run: rustup component add rustfmt clippy" >&2
  exit 1
fi
# librdkafka and its OpenSSL are built from source.
packages=(gcc g++ make perl pkg-config)
missing=()
for tool in "${packages[@]}"; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -qy "${packages[@]}"
else
  echo "missing: ${missing[*]}; run: sudo apt-get install ${packages[*]}" >&2
  exit 1
fi
