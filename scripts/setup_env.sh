#!/usr/bin/env bash
# Builds .venv from the lock: torch first, then everything else by hash. Safe to run again; does nothing when up to date.
# Run: scripts/setup_env.sh [cpu|cuda|rocm]     (default: cuda when nvidia-smi answers, else cpu)
#      scripts/setup_env.sh vllm [cpu|cuda]     builds .venv-vllm, which fab package.parity asks vLLM in
#   PYTHON                 the interpreter to build on, 3.11 to 3.13 (default: python3)
#   POTSTILL_TORCH_INDEX   a wheel index to take torch from; needed for rocm, optional for a small CPU build
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_VERSION=2.13.0
PYTHON=${PYTHON:-python3}
fail() { echo "setup_env: $*" >&2; exit 2; }

environment=.venv
if [ "${1:-}" = vllm ]; then
  environment=.venv-vllm
  shift
fi
flavour=${1:-}
if [ -z "$flavour" ]; then
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then flavour=cuda; else flavour=cpu; fi
fi
case "$environment $flavour" in
  ".venv cpu") lock=requirements.lock ;;
  ".venv cuda" | ".venv rocm") lock=requirements-gpu.lock ;;
  ".venv-vllm cpu") lock=requirements-vllm.lock ;;
  ".venv-vllm cuda") lock=requirements-vllm-gpu.lock ;;
  ".venv-vllm rocm") fail "vLLM's builds for ROCm are images and wheels for one Python and one ROCm; see docs/parity.md" ;;
  *) fail "'$flavour' is no flavour; want cpu, cuda or rocm" ;;
esac
if [ "$flavour" = rocm ] && [ -z "${POTSTILL_TORCH_INDEX:-}" ]; then
  fail "set POTSTILL_TORCH_INDEX to the ROCm wheel index that PyTorch's install page shows for your ROCm version"
fi

stamp="$flavour $(sha256sum "$lock" | cut -d' ' -f1)"
[ -f .env ] || install -m 600 .env.example .env
if [ "$(cat "$environment/potstill-stamp" 2>/dev/null)" = "$stamp" ]; then
  [ -t 1 ] && echo "$environment is up to date ($flavour)"
  exit 0
fi

command -v "$PYTHON" >/dev/null || fail "no $PYTHON on PATH; set PYTHON to a Python 3.11, 3.12 or 3.13"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
  || fail "$("$PYTHON" --version) is not supported; set PYTHON to a Python 3.11, 3.12 or 3.13"

echo "setup_env: building $environment ($flavour) from $lock; a few minutes, once"
rm -f "$environment/potstill-stamp"
[ -x "$environment/bin/python" ] || "$PYTHON" -m venv "$environment"
pip() { "$environment/bin/python" -m pip --disable-pip-version-check "$@"; }
if ! grep -q '^torch==' "$lock"; then
  torch_source=()
  [ -z "${POTSTILL_TORCH_INDEX:-}" ] || torch_source=(-i "$POTSTILL_TORCH_INDEX")
  pip install --quiet ${torch_source[@]+"${torch_source[@]}"} "torch==$TORCH_VERSION"
fi
# torch's builds share a version but no hash, so it cannot be in the lock; --no-deps keeps pip from replacing it
pip install --quiet --no-deps --require-hashes -r "$lock"
# the project itself is run from its folder and is not installed
echo "$stamp" >"$environment/potstill-stamp"
if [ "$environment" = .venv ]; then next="./fab demo"; else next="./fab package.parity --all"; fi
echo "setup_env: wrote $environment; next: $next"
