#!/usr/bin/env bash
# Everything that needs a GPU, a stage after the other; each takes less than ten minutes, and rows are kept as they come.
#   benchmarks/gpu.sh [STAGE ...]   build, tests, kernels, export, engines (or one of its parts by name); all of them unless named
#   benchmarks/gpu.sh --dry         says what it would do and what is missing; needs no GPU
#   benchmarks/gpu.sh --tiny        the engines' benchmark on the CPU with tiny pipelines; needs no GPU
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-benchmarks/results}"
work="${WORK:-build/shapes}"  # checkpoints, bundles and plans
depth="${DEPTH:-0.25}"  # share of FLUX's layers

# ON, not AUTO: a build that silently left CUDA out would measure nothing. Torch makes the tests' device arrays.
build=(env RESYNTH_CUDA=ON RESYNTH_CUDA_ARCHS=native pip install --quiet ".[export,test]")
tests=(pytest -q -m gpu)
kernels=(noise similarity step topk)
engines=(plans latency step resident swapping transfer rotation extractor invariance)

missing=
for tool in nvcc nvidia-smi; do command -v "$tool" >/dev/null || missing+=" $tool"; done

shaped() { python benchmarks/bench_gpu.py --work "$work" --depth "$depth" --stage "$1" --json; }
keep() { tee -a "$out/shapes-gpu.jsonl"; }

stage() {
  echo "+ $1" >&2
  case "$1" in
    build) "${build[@]}" ;;
    tests) "${tests[@]}" ;;
    kernels) for name in "${kernels[@]}"; do python "benchmarks/bench_$name.py" --gpu --json | keep; done ;;
    export) shaped export ;;
    engines) for name in "${engines[@]}"; do stage "$name"; done ;;
    *)
      [[ " ${engines[*]} " == *" $1 "* ]] || { echo "no stage $1; there are build, tests, kernels, export, engines, ${engines[*]}" >&2; exit 2; }
      shaped "$1" | keep ;;
  esac
}

case "${1:-}" in
  --dry)
    printf 'would run: %s\n' "${build[*]}" "${tests[*]}" "kernels: ${kernels[*]}" "export" "engines: ${engines[*]}"
    echo "missing:${missing:- nothing}"
    exit 0 ;;
  --tiny) exec env OMP_NUM_THREADS=1 python benchmarks/bench_gpu.py --tiny ;;
esac
[ -z "$missing" ] || { echo "not run: no$missing here" >&2; exit 4; }
mkdir -p "$out" "$work"
nvidia-smi -L
[ $# -gt 0 ] || set -- build tests kernels export engines
for name in "$@"; do stage "$name"; done
echo "commit $(git rev-parse --short HEAD), $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
