# Sourced by the launchers of this folder, which have set TASKS, DATA_OPTIONS, MODEL and ASSETS. Both commands leave
# alone, or write again with the same bytes, what is there already.
ASSETS=$(realpath -m "$ASSETS")
making_model=false making_data=false made=()
[ -n "$MODEL_PATH" ] || { making_model=true MODEL_PATH=$ASSETS/$MODEL; }
[ -n "$TRAIN_FILES" ] || { making_data=true made=(data.train_files=) TRAIN_FILES=$ASSETS/train.parquet; }
if ! $making_data && [ -z "$VAL_FILES" ]; then
    echo "$(basename "$0"): TRAIN_FILES needs VAL_FILES: the problems of another task say nothing of it" >&2
    exit 2
fi
[ -n "$VAL_FILES" ] || { made+=(data.val_files=) VAL_FILES=$ASSETS/test.parquet; }

prepare() { # called by ../launch.sh before it trains, with the launcher's arguments
    files_are_there "$@" "${made[@]}" # what is made here is not looked for, as if an override took its place
    if $making_model; then "$PYTHON" -m egsw_plugin model "$MODEL" --out "$MODEL_PATH"; fi
    if $making_data; then
        "$PYTHON" -m egsw_plugin data reasoning-gym --tasks "${TASKS[@]}" "${DATA_OPTIONS[@]}" --out "$ASSETS"
    fi
}
