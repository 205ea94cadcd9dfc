#!/usr/bin/env bash
# EGSW over a grid of alpha and P, one run after the other: their values are not public. A run that
# fails does not end it. Arguments are hydra overrides.
# README.md beside this file explains. LAUNCHER chooses the model.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- user-adjustable -------------------------------------------------------------------------------------------------
ALPHAS=${ALPHAS:-0.0 0.5 2.0}
TEMPERATURES=${TEMPERATURES:-1.0 3.0 10.0}   # P
SEEDS=${SEEDS:-1}
LAUNCHER=${LAUNCHER:-$HERE/run_qwen2.5_math_7b.sh}
RUNS=${RUNS:-outputs/egsw-sweep}
# ----------------------------------------------------------------------------------------------------------------------

failed=()
for alpha in $ALPHAS; do
    for temperature in $TEMPERATURES; do
        for seed in $SEEDS; do
            name=$(basename "$LAUNCHER" .sh)-alpha$alpha-p$temperature-seed$seed
            METHOD=egsw SEED=$seed RUN_NAME=$name OUT=$RUNS/$name bash "$LAUNCHER" \
                algorithm.egsw.alpha="$alpha" algorithm.egsw.temperature="$temperature" "$@" || failed+=("$name")
        done
    done
done
[ ${#failed[@]} = 0 ] || { echo "sweep.sh: failed: ${failed[*]}; the same command goes on with them" >&2; exit 1; }
