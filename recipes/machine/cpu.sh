# Sourced: the environment of a run without an accelerator, and PYTHON's folder first in the path.
if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" > /dev/null || { echo "$(basename "$0"): there is no $PYTHON; run: make setup" >&2 && exit 2; }
    PYTHON=$(realpath -s "$(command -v "$PYTHON")")
    export PATH=${PYTHON%/*}:$PATH
fi
export VERL_PLATFORM=cpu           # egsw_plugin.cpu
export VLLM_CPU_KVCACHE_SPACE=1    # GiB
export VLLM_CPU_OMP_THREADS_BIND=nobind
export OMP_NUM_THREADS=1           # the processes take turns on few cores
export TOKENIZERS_PARALLELISM=false
# glibc would hand the memory of each large tensor back to the system, which clears every page when it is next asked for.
# KEEP_MEMORY=no lets it: an update takes longer, and the run less memory.
case ${KEEP_MEMORY:-yes} in
    yes) export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=$((1 << 40)) MALLOC_TOP_PAD_=$((1 << 26)) ;;
    no) ;;
    *) echo "KEEP_MEMORY=$KEEP_MEMORY: yes or no" >&2 && exit 2 ;;
esac
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
export RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
