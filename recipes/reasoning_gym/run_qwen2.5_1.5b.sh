#!/usr/bin/env bash
# Qwen2.5-1.5B-Instruct, or any other model by MODEL_PATH, on tasks of reasoning-gym, on one GPU.
# README.md beside this file explains. Arguments are hydra overrides, as in: run_qwen2.5_1.5b.sh trainer.save_freq=10
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- user-adjustable; more in ../launch.sh (OUT, SEED, NNODES, LOGGER, PYTHON) ---------------------------------------
METHOD=${METHOD:-egsw}
# egsw (default), gtpo, grpo_s, grpo and dapo (baselines): the files of ../method/
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-1.5B-Instruct}
ASSETS=${ASSETS:-$PWD/data/reasoning_gym}   # where the data are made
TRAIN_FILES=${TRAIN_FILES:-}       # empty: the tasks below
VAL_FILES=${VAL_FILES:-}
RUN_NAME=${RUN_NAME:-reasoning-gym-qwen2.5-1.5b-$METHOD-seed${SEED:-1}}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-1}
# ----------------------------------------------------------------------------------------------------------------------

TASKS=(                            # as the library makes them; docs/data.md has how to choose and change tasks
    leg_counting
    products:min_digits=2,max_digits=4
    letter_counting
    gcd
    chain_sum
    basic_arithmetic
    number_sorting
    simple_equations
)
DATA_OPTIONS=(--size 20000 --test-size 400 --prompt steps)
MODEL=
. "$HERE/prepare.sh"

CONFIG=reasoning_gym/qwen2.5_1.5b
. "$HERE/../launch.sh"
