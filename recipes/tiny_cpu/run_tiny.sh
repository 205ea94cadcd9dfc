#!/usr/bin/env bash
# Train the tiny model on the CPU; README.md beside this file explains. Arguments are hydra overrides.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# ---- user-adjustable; more in ../launch.sh ---------------------------------------------------------
ADV=${ADV:-egsw}                   # a file of ../method, or any advantage estimator
STEPS=${STEPS:-40}                 # training steps
SEED=${SEED:-1}                    # data, start model, order of the data, sampling
OUT=${OUT:-$ROOT/outputs/demo/$ADV-seed$SEED}   # metrics.jsonl, checkpoints
ASSETS=${ASSETS:-$ROOT/outputs/assets/seed$SEED}
TIME_LIMIT=${TIME_LIMIT:-900}      # seconds; a failed weight sync hangs
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
# ----------------------------------------------------------------------------------------------------

CONFIG=tiny_cpu/tiny_cpu METHOD=$ADV RUN_NAME=tiny_cpu NGPUS_PER_NODE=1
# A file of ../method brings its paper's objective along; any other estimator of verl or of this plugin has a name alone.
[ -f "$ROOT/recipes/method/$ADV.yaml" ] || METHOD_ARGUMENT=algorithm.adv_estimator=$ADV
. "$ROOT/recipes/machine/cpu.sh"

ASSETS=$(realpath -m "$ASSETS")
MODEL_PATH=$ASSETS/model TRAIN_FILES=$ASSETS/train.parquet VAL_FILES=$ASSETS/test.parquet
prepare() { "$PYTHON" -m egsw_plugin.tiny --out "$ASSETS" --seed "$SEED"; }
. "$ROOT/recipes/launch.sh"
