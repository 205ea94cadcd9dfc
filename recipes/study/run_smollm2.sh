#!/usr/bin/env bash
# One run of the study with a language model: ../reasoning_gym with the study's prompts and settings, and its variables
# (METHOD, SEED, STEPS, OUT, PYTHON). Arguments are hydra overrides.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
export STUDY_CONFIG=study/smollm2_cpu EXAMPLES=$HERE/smollm2_examples.yaml
export MACHINE=${MACHINE:-cpu_135m} # float32 on every processor: runs of several machines are then one study
export ASSETS=${ASSETS:-$ROOT/outputs/assets/study_smollm2} RUN_NAME=${RUN_NAME:-study-smollm2-${METHOD:-egsw}-seed${SEED:-1}}
exec bash "$ROOT/recipes/reasoning_gym/run_smollm2_135m_cpu.sh" "$@"
