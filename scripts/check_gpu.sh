#!/usr/bin/env bash
# Does streamllm work on this machine's NVIDIA GPU, and how fast? In at most 8 minutes:
#
#     bash scripts/check_gpu.sh              # installs into a new environment, runs everything on the GPU
#     bash scripts/check_gpu.sh --cpu        # the same steps, smaller, on the CPU: a dry run
#     bash scripts/check_gpu.sh --installed  # with the Python on the PATH, where streamllm is installed
#
# Prints one table in Markdown, step by step, then the tables of both benchmarks; what each step said is in the folder
# that the first line names. Exit status 1 if a step failed. CUDA=13 takes CUDA 13 instead of 12.
set -uo pipefail

cpu=false installed=false
for word in "$@"; do
    case $word in
        --cpu) cpu=true ;;
        --installed) installed=true ;;
        *) echo "error: $word: accepted are --cpu and --installed" >&2; exit 2 ;;
    esac
done
cuda=${CUDA:-12}
case $cuda in 12) extra=cuda ;; 13) extra=cuda13 ;; *) echo "error: CUDA=$cuda: accepted are 12 and 13" >&2; exit 2 ;; esac

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
work=$(mktemp -d)
echo "logs: $work"
limit=480 # seconds, of everything
SECONDS=0
rows=() failed=0

# A step: its name, what of its log is shown (an extended regular expression), and the command.
step() {
    local name=$1 shown=$2 log="$work/${1// /-}.log" began=$SECONDS left=$((limit - SECONDS)) code outcome
    shift 2
    if [ "$left" -lt 5 ]; then
        rows+=("| $name | left out: the 8 minutes are over | | |"); failed=1
        return 1
    fi
    timeout "$left" "$@" > "$log" 2>&1
    code=$?
    case $code in 0) outcome=passed ;; 124) outcome="stopped: the 8 minutes are over" ;; *) outcome="failed ($code)" ;; esac
    [ $code -eq 0 ] || failed=1
    rows+=("| $name | $outcome | $((SECONDS - began)) | $(grep -aoE "$shown" "$log" | tail -n 1 | tr '|' '/') |")
    return $code
}

install() {
    "${PYTHON:-python3}" -m venv "$work/venv" || return
    local pip="$work/venv/bin/pip"
    if $cpu; then "$pip" install -q -e '.[test]'; return; fi
    "$pip" install -q -e ".[$extra,test]" || return
    # mlx-cpu, which streamllm wants on Linux, and mlx-cuda hold a file of one name, and the later one has won.
    "$pip" uninstall -q -y mlx-cpu
    "$pip" install -q --force-reinstall --no-deps "mlx-cuda-$cuda==$("$pip" show mlx | sed -n 's/^Version: //p')"
}

if ! $installed; then
    export -f install
    export work cpu extra cuda
    step install 'ERROR.*' bash -c install
    export PATH="$work/venv/bin:$PATH"
fi

export WANTED=gpu
$cpu && WANTED=cpu
contexts=(64 1024 4096) repeats=51 sentences=100 tests=()
if $cpu; then contexts=(64) repeats=5 sentences=4 tests=(-k "merge or offset or pool"); fi

step device '(gpu|cpu), .*|error: .*' python - <<'PY'
import os
import sys

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import mlx.core as mx  # isort: skip

found = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
details = mx.device_info() if hasattr(mx, "device_info") else {}
print(f"{found}, {details.get('device_name', 'no name')}, mlx {mx.__version__}")
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
if found != os.environ["WANTED"]:
    sys.exit("error: MLX does not compute on a GPU here: see docs/gpu.md")
PY
if [ $failed -eq 0 ]; then
    step "main job" 'BLEU .*' python run.py policy=waitk k=3 tracker=none output.root="$work/outputs" \
        dataset.limit="$($cpu && echo 8 || echo null)"
    step "main job, latency" 'AL .*' cat "$work/main-job.log"
    step "tests" '[0-9]+ passed.*' python -m pytest -q -n 0 tests/cache/test_cache.py tests/batching/test_batch.py \
        ${tests[@]+"${tests[@]}"}
    step "bench decode" '^$' python scripts/bench_decode.py --contexts "${contexts[@]}" --repeats "$repeats"
    step "bench evaluation" '^$' python scripts/bench_eval.py --limit "$sentences" --rounds 1
fi

printf '\n| step | outcome | seconds | what it said |\n| --- | --- | --- | --- |\n'
printf '%s\n' "${rows[@]}"
for bench in "$work"/bench-*.log; do
    [ -e "$bench" ] && printf '\n%s\n' "$(basename "$bench" .log)" \
        && awk '/^\|/ { if (!table) print ""; print; table = 1; next } { table = 0 }' "$bench"
done
exit $failed
