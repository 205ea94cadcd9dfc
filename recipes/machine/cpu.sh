# Sourced: the environment of a run without an accelerator, and PYTHON's folder first in the path.
if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" > /dev/null || { echo "$(basename "$0"): there is no $PYTHON; run: make setup" >&2 && exit 2; }
    PYTHON=$(realpath -s "$(command -v "$PYTHON")")
    export PATH=${PYTHON%/*}:$PATH
fi
export VERL_PLATFORM=cpu           # egsw_plugin.cpu
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} # GiB
export VLLM_CPU_OMP_THREADS_BIND=nobind
export OMP_NUM_THREADS=1           # the processes take turns on few cores
export TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TRANSFORMERS_OFFLINE=${TRANSFORMERS_OFFLINE:-1}
export RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
