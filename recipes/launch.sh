# Sourced by every launcher, which has set CONFIG (a file of this folder, without .yaml), METHOD, MODEL_PATH, TRAIN_FILES,
# VAL_FILES and RUN_NAME, may set PROMPT_STYLE, and may define a function prepare that makes what it needs.
# Arguments are hydra overrides; --cfg job as the last one prints the configuration and trains nothing.
RECIPES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

OUT=${OUT:-outputs/$RUN_NAME}      # metrics.jsonl, validation/, checkpoints/
SEED=${SEED:-1}
STEPS=${STEPS:-}                   # training steps, if not the configuration's; a run goes on with more of them
NNODES=${NNODES:-1}                # more: start Ray on all nodes first; OUT, data and model on a shared disk
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
LOGGER=${LOGGER:-[console,file]}   # for example [console,file,wandb]
TIME_LIMIT=${TIME_LIMIT:-}         # seconds for the whole run
STALL_LIMIT=${STALL_LIMIT:-7200}   # seconds without a new metric, validation or checkpoint: a hung run; 0: no limit
MEMORY=${MEMORY:-0}                # GiB that must be free at the start; 0: whatever there is
PYTHON=${PYTHON:-python3}          # of the environment that has verl, vllm and this plugin

fail() { echo "$(basename "$0"): $1" >&2; exit 2; }
quoted() { printf "'%s'" "${1//\'/\\\'}"; } # for hydra, to which = , and ( mean something
elsewhere() { case $1 in *://* | *[*?$]*) ;; *) false ;; esac; } # an address or a pattern, of which nothing is known here
plain() { # a file's name without spaces around it and its user's quotes
    local file=${1#"${1%%[![:space:]]*}"}
    file=${file%"${file##*[![:space:]]}"}
    case $file in \'*\' | \"*\") file=${file:1:-1} file=${file//\\\'/\'} file=${file//\\\"/\"} ;; esac
    printf '%s' "$file"
}
files() { # one file, or [several, of, them], from the root on: workers have another working directory
    local list file separator=
    case $1 in
        \[*\]) ;;
        *)
            file=$(plain "$1")
            [[ $file = /* ]] || elsewhere "$file" || file=$PWD/$file
            quoted "$file" && return
            ;;
    esac
    IFS=, read -ra list <<< "${1:1:-1}"
    printf '['
    for file in "${list[@]}"; do printf '%s' "$separator" && files "$file" && separator=,; done
    printf ']'
}

files_are_there() { # verl would miss one minutes later
    local given list file
    for given in TRAIN_FILES VAL_FILES; do
        case " ${*,,} " in *[\ +]data."${given,,}"=*) continue ;; esac # an override takes its place
        given=${!given}
        case $given in
            \[*\]) IFS=, read -ra list <<< "${given:1:-1}" ;;
            *) list=("$given") ;;
        esac
        for file in "${list[@]}"; do
            file=$(plain "$file")
            elsewhere "$file" || [ -e "$file" ] || missing "$file"
        done
    done
}
missing() {
    local name=${1##*/} folder=${DATA_DIR:-}
    [ -n "$folder" ] && [ "$1" = "$folder/$name" ] || fail "there is no $1; TRAIN_FILES and VAL_FILES name the data"
    fail "there is no $1; make it: egsw-plugin data ${name%.parquet} --out $folder --prompt\
 ${PROMPT_STYLE:-... (that of the training; README.md beside this launcher has the whole command)}"
}

printing=false
for argument in "$@"; do
    case $argument in --cfg* | -c | --info* | --help | -h | --hydra-help) printing=true ;; esac
done

enough_memory() { # the kernel would kill a worker, minutes later
    local free limit
    [[ $MEMORY =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "MEMORY=$MEMORY: a number of GiB, or 0 for whatever there is"
    limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max) # a container's
    free=$(awk -v needed="$MEMORY" -v limit="$limit" '/^MemAvailable:/ {
        free = $2 / 2 ^ 20
        if (limit != "max" && limit / 2 ^ 30 < free) free = limit / 2 ^ 30
        if (free < needed) printf "%.1f", free
    }' /proc/meminfo 2>/dev/null) || return 0 # another system
    [ -z "$free" ] || fail "this run takes about $MEMORY GiB of memory, and $free GiB are free: close other programs;\
 MEMORY=0 starts it all the same"
}

# What a run may go on with otherwise than it began, as after a lack of memory: none of it changes what is trained, and a
# checkpoint is read all the same.
FREE_IN_WORDS="what concerns memory, speed, saving, logging and how often to validate"
FREE='[a-z_.]*(micro_batch_size_per_gpu|max_token_len_per_gpu|use_dynamic_bsz|offload[a-z_]*|enable_gradient_checkpointing'
FREE+='|ulysses_sequence_parallel_size|rollout\.(gpu_memory_utilization|enforce_eager|tensor_model_parallel_size|max_num_seqs'
FREE+='|max_num_batched_tokens)|trainer\.(save_freq|test_freq|val_before_train|logger|log_val_generations'
FREE+='|max_(actor|critic)_ckpt_to_keep)|ray_kwargs\.[A-Za-z_.]*)'
deciding() { sed -E "s/ [+~]*$FREE=(\[[^]]*\]|\{[^}]*\}|'[^']*'|[^ ]*)//g" <<< "$1"; }
lacking() { grep -vxFf <(tr ' ' '\n' <<< "$1") <(tr ' ' '\n' <<< "$2") | paste -sd ' ' || true; } # of $2, in $1

as_many_gpus() { # as the checkpoint's that verl will load: minutes later it would name a file that is missing
    local argument mode=auto from='' nodes=$NNODES gpus=$NGPUS_PER_NODE here saved
    for argument in "$@"; do
        case ${argument#"${argument%%[!+]*}"} in
            trainer.resume_mode=*) mode=${argument#*=} ;;
            trainer.resume_from_path=*) from=$(plain "${argument#*=}") ;;
            trainer.nnodes=*) nodes=${argument#*=} ;;
            trainer.n_gpus_per_node=*) gpus=${argument#*=} ;;
        esac
    done
    case $mode in
        auto)
            from=$(cat "$OUT/checkpoints/latest_checkpointed_iteration.txt" 2> /dev/null) || return 0
            from=$OUT/checkpoints/global_step_$from
            ;;
        resume_path) ;;
        *) return 0 ;;
    esac
    saved=("$from"/actor/model_world_size_*_rank_0.pt)
    [ -e "${saved[0]}" ] || return 0 # Megatron's
    [[ "$nodes $gpus" =~ ^[1-9][0-9]*\ [1-9][0-9]*$ ]] || return 0 # verl says what is wrong
    here=$((nodes * gpus)) saved=${saved[0]##*_world_size_} saved=${saved%%_*}
    [ -e "$from/actor/model_world_size_${here}_rank_0.pt" ] || fail "$from was saved by $saved GPUs, and this run has $here (NNODES=$nodes times\
 NGPUS_PER_NODE=$gpus). FSDP loads a checkpoint on as many GPUs as saved it: set the two so that they make $saved. Or give\
 the actor's weights alone, as MODEL_PATH=FOLDER and without CHECKPOINT, to a run with another OUT, which begins at step 0\
 with a new optimizer. This makes the FOLDER: $PYTHON -m verl.model_merger merge --backend fsdp\
 --local_dir $(printf %q "$from/actor") --target_dir FOLDER"
}

# Workers of a Ray cluster that is already running have another working directory.
OUT=$(realpath -m "$OUT")
[ ! -d "$MODEL_PATH" ] || MODEL_PATH=$(realpath "$MODEL_PATH")

if ! $printing; then
    [[ $STALL_LIMIT =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "STALL_LIMIT=$STALL_LIMIT: a number of seconds, or 0 for no limit"
    case $OUT in
        */runtime_resources/working_dir_files/*)
            fail "OUT=$OUT is in Ray's copy of the working directory, which Ray removes with the job; set OUT to a folder\
 from the root on, on a disk that all nodes share" ;;
    esac
    enough_memory
    launched="CONFIG=$CONFIG METHOD=$METHOD MODEL_PATH=$MODEL_PATH SEED=$SEED TRAIN_FILES=$TRAIN_FILES VAL_FILES=$VAL_FILES"
    launched+="${TASKS:+ TASKS=${TASKS[*]} ${DATA_OPTIONS[*]:-}}${*:+ $*}"
    if [ -s "$OUT/metrics.jsonl" ] || [ -d "$OUT/checkpoints" ]; then
        # The run goes on from its last checkpoint, which must not be another run's.
        earlier=$(deciding "$(cat "$OUT/launch.txt" 2> /dev/null || true)") now=$(deciding "$launched")
        if [ "$earlier" != "$now" ]; then
            theirs=$(lacking "$now" "$earlier") ours=$(lacking "$earlier" "$now")
            [ -n "$theirs$ours" ] || theirs="the same in another order"
            fail "$OUT holds another run: it has ${theirs:-nothing} where this one has ${ours:-nothing}. To go on with it\
 give what it has (only $FREE_IN_WORDS may change); for another run set RUN_NAME or OUT"
        fi
    fi
    as_many_gpus "$@"
    if declare -F prepare > /dev/null; then prepare "$@"; else files_are_there "$@"; fi
    mkdir -p "$OUT"
    echo "$launched" > "$OUT/launch.txt"
    if [ -s "$OUT/checkpoints/latest_checkpointed_iteration.txt" ]; then
        if [ -s "$OUT/metrics.jsonl" ]; then
            # verl starts its metrics file anew; the report reads metrics.1.jsonl and so on as well.
            part=1
            while [ -e "$OUT/metrics.$part.jsonl" ]; do part=$((part + 1)); done
            mv "$OUT/metrics.jsonl" "$OUT/metrics.$part.jsonl"
        fi
    elif [ -s "$OUT/metrics.jsonl" ]; then # it begins anew
        rm -rf "$OUT/previous/validation" "$OUT/previous/tensorboard"
        mkdir -p "$OUT/previous"
        mv "$OUT"/metrics*.jsonl "$OUT/previous"
        for name in validation tensorboard; do [ ! -d "$OUT/$name" ] || mv "$OUT/$name" "$OUT/previous"; done
    fi
fi
export VERL_FILE_LOGGER_PATH=$OUT/metrics.jsonl
TENSORBOARD_DIR=$(realpath -m "${TENSORBOARD_DIR:-$OUT/tensorboard}") && export TENSORBOARD_DIR

# A Ray cluster that is already running has its own environment. Keys (WANDB_API_KEY, HF_TOKEN) do not go this way: they
# would show in ps, in the log and in the saved configuration. On the CPU Ray is always started here.
FORWARDED=()
for name in TENSORBOARD_DIR WANDB_ENTITY WANDB_MODE WANDB_BASE_URL HF_HOME HF_ENDPOINT HF_HUB_OFFLINE TRANSFORMERS_OFFLINE; do
    if [ -z "${!name:-}" ] || [ "${VERL_PLATFORM:-}" = cpu ]; then continue; fi
    case ${RAY_JOB_CONFIG_JSON_ENV_VAR:-} in *"\"$name\""*) continue ;; esac # a job that sets it itself; Ray wants it once
    case " $* " in *"env_vars.$name="*) continue ;; esac # as hydra does
    FORWARDED+=("+ray_kwargs.ray_init.runtime_env.env_vars.$name=$(quoted "${!name}")")
done

DATA=(
    data.train_files="$(files "$TRAIN_FILES")"
    data.val_files="$(files "$VAL_FILES")"
    data.seed="$SEED"
)
MODEL=(
    actor_rollout_ref.model.path="$(quoted "$MODEL_PATH")"
)
ROLLOUT=(
    actor_rollout_ref.rollout.seed="$SEED"
)
TRAINER=(
    trainer.nnodes="$NNODES"
    trainer.n_gpus_per_node="$NGPUS_PER_NODE"
    trainer.experiment_name="$(quoted "$RUN_NAME")"
    trainer.logger="$LOGGER"
    trainer.default_local_dir="$(quoted "$OUT/checkpoints")"
    trainer.validation_data_dir="$(quoted "$OUT/validation")"
    hydra.run.dir="$(quoted "$OUT/hydra")"
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH="$(quoted "$OUT/metrics.jsonl")"
    ${FORWARDED[@]+"${FORWARDED[@]}"}
    hydra.searchpath='[pkg://verl.trainer.config]'
)
[ -z "$STEPS" ] || TRAINER+=(trainer.total_training_steps="$STEPS")

# To its end, in a process group of its own, which gets this shell's signals and does not outlive it. No exec: the exit
# code must tell a run that was ended because it hung.
watched() { # COMMAND
    local run watcher name code=0
    set -m
    "$@" &
    run=$!
    watch "$run" &
    watcher=$!
    set +m
    for name in INT TERM HUP; do trap "kill -$name -- -$run 2> /dev/null || true" "$name"; done
    wait "$run" || code=$?
    while kill -0 "$run" 2> /dev/null; do code=0 && wait "$run" || code=$?; done # a signal had ended the wait
    kill -TERM -- "-$watcher" 2> /dev/null || true
    wait "$watcher" || [ "$?" != 124 ] || code=124
    [ "$code" != 130 ] || { trap - INT && kill -INT "$$"; } # so that a loop around the launcher ends as well
    exit "$code"
}
watch() { # GROUP; 124, as of timeout, if it hangs
    local seen='' now='' idle=0 pause=10
    [ "$STALL_LIMIT" -ge 60 ] || pause=1
    trap 'exit 0' TERM
    exec 3>&1 4>&2 2> /dev/null
    while [ "$idle" -lt "$STALL_LIMIT" ] && kill -0 "$$"; do
        sleep "$pause" || continue # one that somebody ended says nothing
        now=$("${SIGNS[@]}") || true
        if [ "$now" = "$seen" ]; then idle=$((idle + pause)); else seen=$now idle=0; fi # a sleeping machine counts nothing
    done
    trap '' TERM
    kill -TERM -- "-$1" || true
    for _ in {1..30}; do kill -0 -- "-$1" && sleep 1 || break; done
    kill -KILL -- "-$1" || true
    [ "$idle" -ge "$STALL_LIMIT" ] || exit 0 # the launcher was killed
    echo "$(basename "$0"): ended: for STALL_LIMIT=$STALL_LIMIT seconds nothing was $added, as where a weight sync has\
 failed, a rollout engine has died, or dynamic sampling finds no groups. If start-up with the first step, a later step or\
 a validation, of which nothing shows before its end, may take longer, set STALL_LIMIT to more, or to 0 for no limit" >&4
    exit 124
}

LIMITED=(env)
[ -z "$TIME_LIMIT" ] || LIMITED=(timeout --kill-after=30 "$TIME_LIMIT")
# While verl waits for rollouts it prints how many there are, for ever if need be: output is no sign where files are.
SIGNS=(find "$OUT/metrics.jsonl" "$OUT/validation" "$OUT/checkpoints" -printf '%p %s %T@\n')
added="added to metrics.jsonl, validation/ or checkpoints/ in $OUT"
logger=$LOGGER
for argument in "$@"; do case $argument in *trainer.logger=*) logger=${argument#*=} ;; esac; done
if [[ $logger != *file* ]]; then
    # A file has its size, a terminal the time of the last output; a pipe on a new Linux neither.
    SIGNS=(stat -L -c '%n %s %Y' /dev/fd/3 /dev/fd/4) added=printed
    seen() { [ -f "/dev/fd/$1" ] || [ -t "$1" ]; }
    if ! $printing && [ "$STALL_LIMIT" != 0 ] && ! seen 1 && ! seen 2; then
        echo "$(basename "$0"): no STALL_LIMIT: what goes through a pipe is not seen, and trainer.logger has no file" >&2
        STALL_LIMIT=0
    fi
fi
START=(watched)
if $printing || [ "$STALL_LIMIT" = 0 ]; then START=(exec); fi
"${START[@]}" "${LIMITED[@]}" "$PYTHON" -m verl.trainer.main_ppo --config-path "$RECIPES" --config-name "$CONFIG" \
    "${METHOD_ARGUMENT:-method=$METHOD}" "${DATA[@]}" "${MODEL[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "$@"
