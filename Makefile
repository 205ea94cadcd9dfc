# make demo   train a tiny model with verl on the CPU   ADV=grpo  SEED=2  STEPS=40  ARGS='key=value +key=value'
# make test   run all tests                              ARGS='-k name'
# make test-combinations   verl on more bases, rewards and trainers (25 minutes)   ARGS='-k name'
# Both first make .venv/, once.
VENV := .venv
ADV ?= egsw
SEED ?= 1
STEPS ?= 40
OUT ?= outputs/demo
TIME_LIMIT ?= 900
ARGS ?=

.PHONY: demo test test-fast test-combinations lint setup clean

demo: setup
	ADV=$(ADV) SEED=$(SEED) STEPS=$(STEPS) TIME_LIMIT=$(TIME_LIMIT) $(VENV)/bin/egsw-plugin run \
	  --out $(OUT) --steps $(STEPS) --time-limit $(TIME_LIMIT) -- bash recipes/tiny_cpu/run_tiny.sh $(ARGS)

test: lint
	$(VENV)/bin/pytest $(ARGS)

test-fast: setup
	$(VENV)/bin/pytest -m "not verl_run and not combination" $(ARGS)

test-combinations: setup
	$(VENV)/bin/pytest -m combination tests/verl_runs $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

setup:
	@bash requirements/install.sh $(VENV)

clean:
	rm -rf outputs
