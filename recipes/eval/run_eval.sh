#!/usr/bin/env bash
# Sample a model on the benchmarks and leave what `egsw-plugin report` reads; nothing is trained.
# README.md beside this file explains. Arguments are hydra overrides.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- user-adjustable; more in ../launch.sh (OUT, SEED, NNODES, NGPUS_PER_NODE, LOGGER, PYTHON) -----------------------
METHOD=grpo   # nothing is trained
MODEL_PATH=${MODEL_PATH:-}         # empty: the CHECKPOINT's, else Qwen/Qwen2.5-Math-7B
CHECKPOINT=${CHECKPOINT:-}         # .../checkpoints/global_step_N of a run on as many GPUs; empty: MODEL_PATH itself
MACHINE=${MACHINE:-fsdp}           # fsdp_32b for 32B: the files of ../machine/
SAMPLES=${SAMPLES:-32}             # responses a problem: k of Mean@k and Pass@k
TEMPERATURE=${TEMPERATURE:-1.0}
TOP_P=${TOP_P:-1.0}
MAX_PROMPT=${MAX_PROMPT:-1024}     # tokens; verl leaves longer prompts out
MAX_RESPONSE=${MAX_RESPONSE:-3072} # tokens; Qwen2.5-Math has 4,096 positions with the prompt
REWARD=${REWARD:-accuracy}         # of egsw_plugin.rewards.math; multiple_choice for gpqa-diamond alone
DATA_DIR=${DATA_DIR:-$PWD/data}    # made by: egsw-plugin data NAME --out data --prompt that of the training
VAL_FILES=${VAL_FILES:-[$DATA_DIR/math-500.parquet,$DATA_DIR/aime-2024.parquet,$DATA_DIR/aime-2025.parquet]}
TRAIN_FILES=${TRAIN_FILES:-$VAL_FILES} # verl loads a training set even if it does not train
RUN_NAME=${RUN_NAME:-eval}
STALL_LIMIT=${STALL_LIMIT:-43200}  # seconds for all of it: nothing is written before its end
# ----------------------------------------------------------------------------------------------------------------------

refuse() { echo "run_eval.sh: CHECKPOINT=$CHECKPOINT $1" >&2; exit 2; }
RESUME=(trainer.resume_mode=disable)
if [ -n "$CHECKPOINT" ]; then
    [ -d "$CHECKPOINT" ] || refuse "is no folder"
    RESUME=(trainer.resume_mode=resume_path trainer.resume_from_path="'$(realpath "$CHECKPOINT")'")
    # Tokenizer, chat template and end tokens are MODEL_PATH's: another model's, which may have the same shapes, spoil all.
    run=$(realpath "$CHECKPOINT/../..")
    trained=$(sed -n 's/.* MODEL_PATH=\(.*\) SEED=.* TRAIN_FILES=.*/\1/p' "$run/launch.txt" 2> /dev/null || true)
    if grep -qs 'actor_rollout_ref\.model\.path=' "$run/launch.txt"; then trained=; fi # an override has named another
    MODEL_PATH=${MODEL_PATH:-$trained}
    [ -n "$MODEL_PATH" ] || refuse "has no launch.txt two folders up that names its model; set MODEL_PATH to it"
    if [ "$MODEL_PATH" != "${trained:-$MODEL_PATH}" ] && [ ! "$MODEL_PATH" -ef "$trained" ]; then
        # Two names of the hub are two models; a folder may be a copy.
        if [ ! -d "$MODEL_PATH" ] && [ ! -d "$trained" ] && [[ $trained != [/.~]* ]]; then
            refuse "was trained from $trained, not from MODEL_PATH=$MODEL_PATH; leave MODEL_PATH out"
        fi
        echo "run_eval.sh: is $MODEL_PATH a copy of $trained? The run of CHECKPOINT was trained from that" >&2
    fi
fi
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-Math-7B}

CONFIG=eval/eval
. "$HERE/../launch.sh" \
    machine="$MACHINE" \
    trainer.val_only=True \
    trainer.val_before_train=True \
    data.max_prompt_length="$MAX_PROMPT" \
    data.max_response_length="$MAX_RESPONSE" \
    reward.custom_reward_function.name="$REWARD" \
    actor_rollout_ref.rollout.val_kwargs.n="$SAMPLES" \
    actor_rollout_ref.rollout.val_kwargs.temperature="$TEMPERATURE" \
    actor_rollout_ref.rollout.val_kwargs.top_p="$TOP_P" \
    "${RESUME[@]}" "$@"
