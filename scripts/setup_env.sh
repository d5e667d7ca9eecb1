#!/usr/bin/env bash
# Builds .venv from the lock: torch first, then everything else by hash. Safe to run again; does nothing when up to date.
# Run: scripts/setup_env.sh [cpu|cuda|rocm]     (default: cuda when nvidia-smi answers, else cpu)
#   PYTHON                 the interpreter to build on, 3.11 to 3.13 (default: python3)
#   POTSTILL_TORCH_INDEX   a wheel index to take torch from; needed for rocm, optional for a small CPU build
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_VERSION=2.13.0
PYTHON=${PYTHON:-python3}
fail() { echo "setup_env: $*" >&2; exit 2; }

flavour=${1:-}
if [ -z "$flavour" ]; then
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then flavour=cuda; else flavour=cpu; fi
fi
case "$flavour" in
  cpu) lock=requirements.lock ;;
  cuda | rocm) lock=requirements-gpu.lock ;;
  *) fail "'$flavour' is no flavour; want cpu, cuda or rocm" ;;
esac
if [ "$flavour" = rocm ] && [ -z "${POTSTILL_TORCH_INDEX:-}" ]; then
  fail "set POTSTILL_TORCH_INDEX to the ROCm wheel index that PyTorch's install page shows for your ROCm version"
fi

stamp="$flavour $(sha256sum "$lock" | cut -d' ' -f1)"
[ -f .env ] || install -m 600 .env.example .env
if [ "$(cat .venv/potstill-stamp 2>/dev/null)" = "$stamp" ]; then
  [ -t 1 ] && echo ".venv is up to date ($flavour)"
  exit 0
fi

command -v "$PYTHON" >/dev/null || fail "no $PYTHON on PATH; set PYTHON to a Python 3.11, 3.12 or 3.13"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
  || fail "$("$PYTHON" --version) is not supported; set PYTHON to a Python 3.11, 3.12 or 3.13"

echo "setup_env: building .venv ($flavour) from $lock; a few minutes, once"
rm -f .venv/potstill-stamp
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
torch_source=()
[ -z "${POTSTILL_TORCH_INDEX:-}" ] || torch_source=(-i "$POTSTILL_TORCH_INDEX")
pip install --quiet ${torch_source[@]+"${torch_source[@]}"} "torch==$TORCH_VERSION"
# torch's builds share a version but no hash, so it cannot be in the lock; --no-deps keeps pip from replacing it
pip install --quiet --no-deps --require-hashes -r "$lock"
# the project itself is run from its folder and is not installed
echo "$stamp" >.venv/potstill-stamp
echo "setup_env: wrote .venv; next: ./fab demo"
