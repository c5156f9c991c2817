#!/bin/bash
# What a GPU tells in 12 minutes: encoders and steps against the card's peak, batches, paradigms, nnU-Net.
#
#     DATA=shared/data/lits bash Testing/benchmarks/gpu.sh             results under $OUT (or gpu/)
#     bash Testing/benchmarks/gpu.sh --dry-run                         phantoms, tiny sizes, on the CPU
#
# DATA holds LiTS volumes with the names of Docs/results/draws-lits.json. Only draw A is used, which is
# for tuning; its test cases are scored after the runs. PYTHON is the interpreter (python3), and
# nnU-Net runs where its package nnunetv2 is installed for it. Each part has a time limit of its own and
# its result in $OUT; a part that fails does not stop the others, and the exit status counts those.
set -u
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-gpu}
export PYTHONPATH="$PWD/Logic${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT"
: >"$OUT/summary.txt"
failed=0

part() { # name, seconds, command...
    local name=$1 seconds=$(($2 * patience))
    shift 2
    local began=$SECONDS
    timeout "$seconds" "$@" >"$OUT/$name.log" 2>&1
    local status=$?
    echo "$name: exit status $status, $((SECONDS - began)) s of at most $seconds s" | tee -a "$OUT/summary.txt"
    [ $status -eq 0 ] || failed=$((failed + 1))
}

sizes=()
patience=1
if [ "${1:-}" = --dry-run ]; then
    DATA=$OUT/phantoms
    sizes=(--dry-run)
    patience=5 # a CPU, perhaps a busy one
    part phantoms 120 "$PYTHON" Testing/benchmarks/gpu_parts.py phantoms "$DATA"
fi
: "${DATA:?name the folder of LiTS volumes, or give --dry-run}"

part machine 30 "$PYTHON" Testing/benchmarks/gpu_parts.py machine "$OUT/machine.json" "${sizes[@]}"
part encoder 40 "$PYTHON" Testing/benchmarks/gpu_parts.py encoder "$OUT" "${sizes[@]}"
part batches 40 "$PYTHON" Testing/benchmarks/gpu_parts.py batches "$OUT" "${sizes[@]}"
part steps 150 "$PYTHON" Testing/benchmarks/gpu_parts.py steps "$OUT" --data "$DATA" "${sizes[@]}"
part paradigms 240 "$PYTHON" Testing/benchmarks/gpu_parts.py paradigms "$OUT" --data "$DATA" "${sizes[@]}"
part nnunet 220 "$PYTHON" Testing/benchmarks/gpu_parts.py nnunet "$OUT" --data "$DATA" "${sizes[@]}"
cat "$OUT/summary.txt"
exit $failed
