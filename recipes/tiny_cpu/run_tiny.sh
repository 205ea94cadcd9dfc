#!/usr/bin/env bash
# Train the tiny model on the CPU; README.md beside this file explains. Arguments are hydra overrides.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# ---- user-adjustable -------------------------------------------------------------------------------
ADV=${ADV:-egsw}                   # a file of ../method, or any advantage estimator
STEPS=${STEPS:-40}                 # training steps
SEED=${SEED:-1}                    # data, start model, order of the data, sampling
OUT=${OUT:-$ROOT/outputs/demo}     # metrics.jsonl, checkpoints
ASSETS=${ASSETS:-$ROOT/outputs/assets/seed$SEED}
TIME_LIMIT=${TIME_LIMIT:-900}      # seconds; a failed weight sync hangs
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
# ----------------------------------------------------------------------------------------------------

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

. "$ROOT/recipes/machine/cpu.sh"
export VERL_FILE_LOGGER_PATH=$OUT/metrics.jsonl
PATH=$(cd "$(dirname "$PYTHON")" && pwd):$PATH

"$PYTHON" -m egsw_plugin.tiny --out "$ASSETS" --seed "$SEED"
ASSETS=$(cd "$ASSETS" && pwd)

DATA=(
    data.train_files="$ASSETS/train.parquet"
    data.val_files="$ASSETS/test.parquet"
    data.seed="$SEED"
)
MODEL=(
    actor_rollout_ref.model.path="$ASSETS/model"
)
ROLLOUT=(
    actor_rollout_ref.rollout.seed="$SEED"
)
# A file of ../method brings its paper's objective along; any other estimator of verl or of this plugin has a name alone.
METHOD=(algorithm.adv_estimator="$ADV")
[ ! -f "$ROOT/recipes/method/$ADV.yaml" ] || METHOD=(method="$ADV")
TRAINER=(
    trainer.total_training_steps="$STEPS"
    trainer.default_local_dir="$OUT/checkpoints"
    hydra.run.dir="$OUT/hydra"
)

cd "$OUT"
exec timeout --kill-after=30 "$TIME_LIMIT" "$PYTHON" -m verl.trainer.main_ppo \
    --config-path "$ROOT/recipes" --config-name tiny_cpu/tiny_cpu hydra.searchpath='[pkg://verl.trainer.config]' \
    "${DATA[@]}" "${MODEL[@]}" "${ROLLOUT[@]}" "${METHOD[@]}" "${TRAINER[@]}" "$@"
