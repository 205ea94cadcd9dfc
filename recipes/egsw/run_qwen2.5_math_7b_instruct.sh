#!/usr/bin/env bash
# EGSW (arXiv 2503.22456) on Qwen2.5-Math-7B-Instruct.
# README.md beside this file explains. Arguments are hydra overrides, as in: run_qwen2.5_math_7b_instruct.sh trainer.save_freq=10
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- user-adjustable; more in ../launch.sh (OUT, SEED, NNODES, NGPUS_PER_NODE, LOGGER, PYTHON) -----------------------
METHOD=${METHOD:-egsw}
# egsw (default), egsw_alpha0 (control), grpo (baseline): the files of ../method/
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-Math-7B-Instruct}
DATA_DIR=${DATA_DIR:-$PWD/data}   # made by: egsw-plugin data NAME --out data --prompt think
TRAIN_FILES=${TRAIN_FILES:-$DATA_DIR/math.parquet}
VAL_FILES=${VAL_FILES:-[$DATA_DIR/math-500.parquet]}
RUN_NAME=${RUN_NAME:-egsw-qwen2.5-math-7b-instruct-$METHOD-seed${SEED:-1}}
# ----------------------------------------------------------------------------------------------------------------------

PROMPT_STYLE=think # of the data, which the reward goes by
CONFIG=egsw/math_7b
. "$HERE/../launch.sh"
