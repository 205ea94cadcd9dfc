# Sourced by every launcher, which has set CONFIG (a file of this folder, without .yaml), METHOD, MODEL_PATH, TRAIN_FILES,
# VAL_FILES and NAME. Arguments are hydra overrides; --cfg job prints the configuration instead of training.
RECIPES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUT=${OUT:-outputs/$NAME}          # metrics.jsonl, validation/, checkpoints/
SEED=${SEED:-1}
NNODES=${NNODES:-1}                # more: start Ray on all nodes first, then run this on the head node
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
LOGGER=${LOGGER:-[console,file]}   # for example [console,file,wandb]
PYTHON=${PYTHON:-python3}          # of the environment that has verl, vllm and this plugin

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export VERL_FILE_LOGGER_PATH=$OUT/metrics.jsonl

# verl starts its metrics file anew when a run goes on after a stop; the report reads metrics.1.jsonl and so on as well.
case " $* " in
    *" --cfg "*) ;;
    *)
        if [ -s "$OUT/metrics.jsonl" ]; then
            part=1
            while [ -e "$OUT/metrics.$part.jsonl" ]; do part=$((part + 1)); done
            mv "$OUT/metrics.jsonl" "$OUT/metrics.$part.jsonl"
        fi
        ;;
esac

DATA=(
    data.train_files="$TRAIN_FILES"
    data.val_files="$VAL_FILES"
    data.seed="$SEED"
)
MODEL=(
    actor_rollout_ref.model.path="$MODEL_PATH"
)
ROLLOUT=(
    actor_rollout_ref.rollout.seed="$SEED"
)
TRAINER=(
    trainer.nnodes="$NNODES"
    trainer.n_gpus_per_node="$NGPUS_PER_NODE"
    trainer.experiment_name="$NAME"
    trainer.logger="$LOGGER"
    trainer.default_local_dir="$OUT/checkpoints"
    trainer.validation_data_dir="$OUT/validation"
    hydra.run.dir="$OUT/hydra"
    hydra.searchpath='[pkg://verl.trainer.config]'
)

exec "$PYTHON" -m verl.trainer.main_ppo --config-path "$RECIPES" --config-name "$CONFIG" \
    method="$METHOD" "${DATA[@]}" "${MODEL[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "$@"
