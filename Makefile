# make demo   train a tiny model with verl on the CPU   ADV=grpo  SEED=2  STEPS=40  ARGS='key=value +key=value'
# make demo MODEL=smollm2   a language model, 135 M parameters (10 to 60 minutes, 15 GiB of free memory)   ADV=grpo  SEED=2  STEPS=3
# make smoke  a recipe for GPUs, unchanged, for two steps on the CPU with the tiny model   RECIPE=recipes/gtpo/run_qwen2.5_7b.sh
# make smoke-all   all of them (about 14 minutes)
# make test   run all tests                              ARGS='-k name'   make test-fast: without real runs of verl
# make test-combinations   verl on more bases, rewards and trainers (about 50 minutes)   ARGS='-k name'
# make study  compare the methods over seeds (hours; the same command goes on)   ARGS='--quick' '--only grpo --only gtpo --seeds 6 7'
# make study-report   rebuild the tables and figures of docs/study*.md from the records beside them
# make pages   rewrite the tables of docs/options.md and docs/family.md from the members' declarations
# make docs    build the documentation site into outputs/site (Python 3.11 or newer)   make docs-serve: show it while you write
# make pictures   draw the pictures of docs/ anew, with the kernels
# make mutants   break the package in one place at a time and list what no test notices (hours)   ARGS='--files kernels --sample 5'
# make newest-verl   try the newest verl that pip finds and report; what it finds does not fail (a minute or two)
# make lint   ruff and mypy   make setup: .venv/ alone   make clean: remove outputs/
# Each first makes .venv/, once, with Python 3.10, 3.11 or 3.12   PYTHON=/path/to/python3.12; docs makes .venv-docs/, which is small.
VENV := .venv
DOCS_VENV := .venv-docs
# What makes .venv/; everything else, launchers too, runs with .venv/'s own.
BASE_PYTHON := $(PYTHON)
override PYTHON := $(abspath $(VENV))/bin/python
export PYTHON
ADV ?= egsw
SEED ?= 1
MODEL ?= tiny
STEPS ?= $(if $(filter smollm2,$(MODEL)),60,40)
OUT ?= outputs/demo$(if $(filter smollm2,$(MODEL)),-smollm2)/$(ADV)-seed$(SEED)
TIME_LIMIT ?= $(if $(filter smollm2,$(MODEL)),7200,900)
ARGS ?=
FAST = $(VENV)/bin/pytest -n 2 --dist loadfile -m 'not verl_run and not combination'

RECIPE ?= recipes/egsw/run_qwen2.5_math_7b.sh
SMOKE_OUT ?= outputs/smoke

.PHONY: help demo smoke smoke-all test test-fast test-combinations study study-report pages docs docs-serve pictures mutants newest-verl lint setup clean

# make alone: the lines at the top of this file.
help:
	@sed -n '/^[^#]/q; s/^# //p' $(firstword $(MAKEFILE_LIST))

LAUNCHER_tiny = recipes/tiny_cpu/run_tiny.sh
LAUNCHER_smollm2 = recipes/reasoning_gym/run_smollm2_135m_cpu.sh

demo: setup
	$(if $(LAUNCHER_$(MODEL)),,$(error MODEL=$(MODEL): use tiny or smollm2))
	ADV=$(ADV) METHOD=$(ADV) SEED=$(SEED) STEPS=$(STEPS) TIME_LIMIT=$(TIME_LIMIT) $(VENV)/bin/egsw-plugin run \
	  --out '$(OUT)' --steps $(STEPS) --time-limit $(TIME_LIMIT) -- bash $(LAUNCHER_$(MODEL)) $(ARGS)

# pytest's 5 means that ARGS chose none of these tests.
test: lint
	$(FAST) $(ARGS) || [ $$? = 5 ]
	$(VENV)/bin/pytest -o testpaths=tests/verl_runs -m verl_run $(ARGS) || [ $$? = 5 ]

test-fast: setup
	$(FAST) $(ARGS)

smoke: setup
	OUT='$(CURDIR)/$(SMOKE_OUT)/$(subst /,-,$(basename $(RECIPE)))' TIME_LIMIT=$(TIME_LIMIT) $(VENV)/bin/egsw-plugin run \
	  --out '$(CURDIR)/$(SMOKE_OUT)/$(subst /,-,$(basename $(RECIPE)))' --time-limit $(TIME_LIMIT) -- \
	  bash recipes/smoke/smoke.sh $(RECIPE) $(ARGS)

smoke-all: setup
	@for recipe in recipes/*/run_*.sh; do \
	  case $$recipe in */tiny_cpu/* | */study/* | *_cpu.sh) ;; *) $(MAKE) --no-print-directory smoke RECIPE=$$recipe || exit 1 ;; esac; \
	done

test-combinations: setup
	$(VENV)/bin/pytest -m combination tests/verl_runs $(ARGS)

study: setup
	$(VENV)/bin/egsw-plugin study run recipes/study/grid.yaml $(ARGS)

study-report: setup
	$(VENV)/bin/egsw-plugin study report recipes/study/grid.yaml --runs docs/study/runs --out docs/study --page docs/study.md
	$(VENV)/bin/egsw-plugin study report recipes/study/smollm2.yaml --runs docs/study_smollm2/runs \
	  --out docs/study_smollm2 --page docs/study_smollm2.md

pages: setup
	$(VENV)/bin/python -m egsw_plugin.methods.pages docs

mutants: setup
	nice -n 15 $(VENV)/bin/python tests/mutants.py $(ARGS)

docs: $(DOCS_VENV)/.installed
	$(MKDOCS) build --strict # not --quiet: warnings that are not shown count for nothing, and pass
	@echo outputs/site/index.html

docs-serve: $(DOCS_VENV)/.installed
	$(MKDOCS) serve

# The variable silences an advertisement of the theme's.
MKDOCS = NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs

$(DOCS_VENV)/.installed: requirements/docs.txt
	$(or $(BASE_PYTHON),$(wildcard $(VENV)/bin/python),python3) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input install --no-compile --no-deps -r $<
	@touch $@

pictures: setup
	$(VENV)/bin/python docs/pictures.py docs/pictures

newest-verl: setup
	@PYTHON=$(VENV)/bin/python .ci/newest_verl

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup:
	@PYTHON='$(BASE_PYTHON)' bash requirements/install.sh $(VENV)

clean:
	rm -rf outputs
