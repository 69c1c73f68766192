#!/usr/bin/env bash
# Everything that needs a GPU: build with CUDA, run the tests marked gpu, print the GPU table.
#   benchmarks/gpu.sh         in an environment where `pip install` works and a GPU is present
#   benchmarks/gpu.sh --dry   says what it would do and checks what is there; needs no GPU
set -euo pipefail
cd "$(dirname "$0")/.."

build=(pip install --quiet "--config-settings=cmake.define.RESYNTH_CUDA=AUTO" ".[gpu]" pytest hypothesis)
tests=(pytest -q -m gpu)
table=(python benchmarks/bench_similarity.py --json)

for tool in nvcc nvidia-smi; do
  command -v "$tool" >/dev/null && echo "$tool: $(command -v "$tool")" || echo "$tool: not found"
done
if [ "${1:-}" = --dry ]; then
  printf 'would run: %s\n' "${build[*]}" "${tests[*]}" "${table[*]}"
  exit 0
fi
nvidia-smi -L
"${build[@]}"
"${tests[@]}"
"${table[@]}"
echo "commit $(git rev-parse --short HEAD), $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
