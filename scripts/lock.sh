#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock (CPU) and requirements-gpu.lock: the whole closure, hashed, without torch.
# Run: scripts/lock.sh        (needs uv on PATH; the only step of the project that does)
set -euo pipefail
cd "$(dirname "$0")/.."
resolve() {  # resolve <excludes> <lock> [extra arguments]
  local excludes=$1 lock=$2
  shift 2
  uv pip compile pyproject.toml --extra dev "$@" --universal --python-version 3.11 \
    --override configs/lock/overrides.txt --excludes "$excludes" \
    --generate-hashes --no-annotate --quiet --output-file "$lock" \
    --custom-compile-command scripts/lock.sh
}
resolve configs/lock/excludes-cpu.txt requirements.lock
resolve configs/lock/excludes-gpu.txt requirements-gpu.lock --extra gpu
echo "wrote requirements.lock, requirements-gpu.lock; next: scripts/setup_env.sh"
