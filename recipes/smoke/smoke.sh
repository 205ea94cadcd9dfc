#!/usr/bin/env bash
# Run any launcher, unchanged, for two steps on the CPU: smoke.sh RECIPE [hydra overrides]. The tiny model and its small
# data take the place of the recipe's; everything else is the recipe's own.
set -euo pipefail
RECIPE=${1:?usage: smoke.sh RECIPE [hydra overrides]}
shift
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# ---- user-adjustable -------------------------------------------------------------------------------
OUT=${OUT:-$ROOT/outputs/smoke/$(echo "${RECIPE%.sh}" | tr / -)}
ASSETS=${ASSETS:-$ROOT/outputs/assets/boxed}
TIME_LIMIT=${TIME_LIMIT:-600}      # seconds; a failed weight sync hangs
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
# ----------------------------------------------------------------------------------------------------

export OUT PYTHON NNODES=1 NGPUS_PER_NODE=1
. "$ROOT/recipes/machine/cpu.sh"
"$PYTHON" -m egsw_plugin.tiny --out "$ASSETS" --boxed
export MODEL_PATH=$ASSETS/model
export TRAIN_FILES=${TRAIN_FILES:-$ASSETS/train.parquet} VAL_FILES=${VAL_FILES:-$ASSETS/test.parquet}

SMALL=(
    machine=cpu
    data.train_batch_size=8
    data.max_prompt_length=32
    data.max_response_length=64
    actor_rollout_ref.actor.ppo_mini_batch_size=4
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4 # divides whatever the recipe's number of responses gives
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4
    critic.ppo_micro_batch_size_per_gpu=4
    actor_rollout_ref.rollout.max_model_len=96
    actor_rollout_ref.rollout.val_kwargs.n=2
    critic.ppo_mini_batch_size=4
    ++reward.reward_kwargs.overlong_buffer_cfg.len=16
    trainer.total_training_steps=2
    trainer.test_freq=2
    trainer.save_freq=-1
)

exec timeout --kill-after=30 "$TIME_LIMIT" bash "$RECIPE" "${SMALL[@]}" "$@"
