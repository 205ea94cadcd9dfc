#!/usr/bin/env bash
# One run of the study: METHOD on the target task with the tiny model on the CPU. Arguments are hydra overrides.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)

# ---- user-adjustable -------------------------------------------------------------------------------
METHOD=${METHOD:-grpo}             # a file of ../method
SEED=${SEED:-1}                    # order of the data, sampling; the start model and the data are the same for all
STEPS=${STEPS:-24}                 # training steps
QUICK=${QUICK:-}                   # 1: a start model that is fitted less, to see that everything works
ASSETS=${ASSETS:-$ROOT/outputs/assets/target${QUICK:+-quick}}
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
# ----------------------------------------------------------------------------------------------------

RUN_NAME=${RUN_NAME:-$METHOD-seed$SEED}
OUT=${OUT:-$ROOT/outputs/target/$RUN_NAME}
CONFIG=study/target_cpu NGPUS_PER_NODE=1
. "$ROOT/recipes/machine/cpu.sh"
prepare() { "$PYTHON" -m egsw_plugin.tiny --task target ${QUICK:+--quick} --out "$ASSETS"; }
ASSETS=$(realpath -m "$ASSETS")
MODEL_PATH=$ASSETS/model TRAIN_FILES=$ASSETS/train.parquet VAL_FILES=$ASSETS/test.parquet
. "$HERE/../launch.sh"
