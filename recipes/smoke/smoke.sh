#!/usr/bin/env bash
# Run any launcher, unchanged, for two steps on the CPU: smoke.sh RECIPE [hydra overrides]. The tiny model and its small
# data take the place of the recipe's; everything else is the recipe's own.
set -euo pipefail
RECIPE=${1:?usage: smoke.sh RECIPE [hydra overrides]}
shift
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# ---- user-adjustable -------------------------------------------------------------------------------
OUT=${OUT:-$ROOT/outputs/smoke}
ASSETS=${ASSETS:-$ROOT/outputs/assets/boxed}
TIME_LIMIT=${TIME_LIMIT:-600}      # seconds; a failed weight sync hangs
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
# ----------------------------------------------------------------------------------------------------

export OUT PYTHON NNODES=1 NGPUS_PER_NODE=1
PATH=$(cd "$(dirname "$PYTHON")" && pwd):$PATH
. "$ROOT/recipes/machine/cpu.sh"
"$PYTHON" -m egsw_plugin.tiny --out "$ASSETS" --boxed
export MODEL_PATH=$ASSETS/model TRAIN_FILES=$ASSETS/train.parquet VAL_FILES=$ASSETS/test.parquet

exec timeout --kill-after=30 "$TIME_LIMIT" bash "$RECIPE" machine=cpu +smoke=tiny "$@"
