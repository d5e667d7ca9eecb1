#!/usr/bin/env bash
# Resolves pyproject.toml into requirements.lock (CPU) and requirements-gpu.lock: the whole closure, hashed, without torch.
# Then vLLM's own environment: requirements-vllm.lock (CPU, without torch) and requirements-vllm-gpu.lock (CUDA, with it).
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
resolve_vllm() {  # resolve_vllm <cpu|gpu> <lock> [extra arguments]
  local kind=$1 lock=$2
  shift 2
  uv pip compile "configs/lock/vllm-$kind.txt" "$@" --universal --python-version 3.11 \
    --excludes "configs/lock/excludes-vllm-$kind.txt" --generate-hashes --no-annotate --quiet --output-file "$lock" \
    --custom-compile-command scripts/lock.sh
}
resolve_vllm cpu requirements-vllm.lock
resolve_vllm gpu requirements-vllm-gpu.lock --no-config  # the official build has no wheel for one of our environments, s390x
echo "wrote requirements.lock, requirements-gpu.lock, requirements-vllm.lock, requirements-vllm-gpu.lock"
echo "next: scripts/setup_env.sh"
