#!/usr/bin/env bash
# GTPO and GRPO-S (arXiv 2508.04349) on Qwen2.5-Math-7B: a port, the paper trains base models.
# README.md beside this file explains. Arguments are hydra overrides, as in: run_qwen2.5_math_7b.sh trainer.save_freq=10
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- user-adjustable; more in ../launch.sh (OUT, SEED, NNODES, NGPUS_PER_NODE, LOGGER, PYTHON) -----------------------
METHOD=${METHOD:-gtpo}
# gtpo (default), grpo_s, gtpo_alpha0 (control), gtpo_09_01, gtpo_10_02, grpo and dapo (baselines): the files of ../method/
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-Math-7B}
DATA_DIR=${DATA_DIR:-$PWD/data/dapo}   # made by: egsw-plugin data NAME --out data/dapo --prompt dapo
TRAIN_FILES=${TRAIN_FILES:-$DATA_DIR/dapo-math-17k.parquet}
VAL_FILES=${VAL_FILES:-[$DATA_DIR/math-500.parquet,$DATA_DIR/aime-2024.parquet,$DATA_DIR/aime-2025.parquet]}
RUN_NAME=${RUN_NAME:-gtpo-qwen2.5-math-7b-port-$METHOD-seed${SEED:-1}}
# ----------------------------------------------------------------------------------------------------------------------

PROMPT_STYLE=dapo # of the data, which the reward goes by
CONFIG=gtpo/qwen2.5_math_7b
. "$HERE/../launch.sh"
