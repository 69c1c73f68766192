#!/usr/bin/env bash
# Everything that needs a GPU: build with CUDA, run the tests marked gpu, print the GPU table.
#   benchmarks/gpu.sh         in an environment where `pip install` works and a GPU is present
#   benchmarks/gpu.sh --dry   says what it would do and what is missing; needs no GPU
set -euo pipefail
cd "$(dirname "$0")/.."

# ON, not AUTO: a build that silently left CUDA out would measure nothing. Torch makes the tests' device arrays.
build=(env RESYNTH_CUDA=ON RESYNTH_CUDA_ARCHS=native pip install --quiet ".[export,test]")
tests=(pytest -q -m gpu)
table=(python benchmarks/table.py --gpu)

missing=
for tool in nvcc nvidia-smi; do command -v "$tool" >/dev/null || missing+=" $tool"; done
if [ "${1:-}" = --dry ]; then
  printf 'would run: %s\n' "${build[*]}" "${tests[*]}" "${table[*]}"
  echo "missing:${missing:- nothing}"
  exit 0
fi
[ -z "$missing" ] || { echo "not run: no$missing here" >&2; exit 4; }
nvidia-smi -L
"${build[@]}"
"${tests[@]}"
"${table[@]}"
sed -n "/<!-- table/,/<!-- end/p" benchmarks/README.md
echo "commit $(git rev-parse --short HEAD), $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
