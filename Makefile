# Everything here works in a fresh clone with nothing but make and Python 3.11 or newer.
# Another interpreter: make test PYTHON=python3.12. The environment is .venv; `make clean` removes it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
CODE := gpujobs jobs tests docs benchmarks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test slow chaos static format check docs monitors pictures bench venv clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1 \t/p' Makefile | expand -t 18

run: $(VENV)/has-jobs ## train the sine_lstm job on a free GPU, or on the CPU where there is none
	$(BIN)/gpujobs run sine_lstm --gpu auto --threads 4

test: $(VENV)/has-jobs-test ## the quick tests
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/has-jobs-test ## the slow tests, and the properties with many more examples
	$(BIN)/python -m pytest -m "slow and not alone" -n auto
	$(BIN)/python -m pytest -m "slow and alone"
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=thorough -n auto

FAULTS ?= 10000
chaos: $(VENV)/has-jobs-test ## kill, freeze, wipe and fill what the queue stands on, and set its clock, as root; SEED=N FAULTS=10000
	PYTHONPATH=tests $(BIN)/python -m chaos.campaign $(if $(SEED),--seed $(SEED)) --faults $(FAULTS)

static: $(VENV)/has-jobs-dev ## format, lint and types
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(VENV)/has-jobs-dev ## put the code into its format, and mend what the linter can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

check: static test slow ## all that a change must pass; stale docs and an incomplete wheel are found by tests

docs: $(VENV)/has-jobs-dev ## write docs/cli.md anew from the help texts
	$(BIN)/python docs/generate_cli.py

monitors: $(VENV)/has-jobs-bench ## write docs/monitors.md anew: what nvitop, gpustat and we make of broken machines
	$(BIN)/python docs/generate_monitors.py

pictures: $(VENV)/has-jobs ## train the built-in jobs, and keep small copies of their figures for docs/jobs.md
	$(BIN)/python docs/generate_pictures.py $(DATA)

TRACES ?= $(or $(GPUJOBS_TEST_DATA),../shared/data)/traces
bench: $(VENV)/has-jobs-bench ## the measurements behind the README's claims; those of the queue need TRACES=FOLDER
	@set -e; for file in $(filter-out benchmarks/queue%.py benchmarks/subsets.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(BIN)/python "$$file"; done
	@echo "== benchmarks/queueing.py, a tenth of it"; $(BIN)/python benchmarks/queueing.py --quick
	@if test -d "$(TRACES)"; then echo "== benchmarks/queuepolicy.py"; \
		$(BIN)/python benchmarks/queuepolicy.py "$(TRACES)" --save; \
		else echo "no traces in $(TRACES): the queue's policy is not measured" >&2; fi

venv: $(VENV)/made ## an empty environment

clean: ## remove the environment, caches and builds
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# ---- the environment: installed again only when pyproject.toml has changed ---------------------------------------

$(VENV)/made:
	@command -v $(PYTHON) >/dev/null \
		|| { echo "gpujobs: $(PYTHON) was not found; name another interpreter: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "gpujobs: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "gpujobs: $(PYTHON) cannot make environments; on Debian or Ubuntu, install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/has-jobs: $(VENV)/made pyproject.toml
	@echo "gpujobs: installing into $(VENV); torch is large, the first time takes minutes" >&2
	$(PIP) --editable '.[jobs]'
	@touch $@

# has-jobs-test, has-jobs-dev, has-jobs-bench: the jobs' needs and one more extra
$(VENV)/has-jobs-%: $(VENV)/made pyproject.toml
	@echo "gpujobs: installing into $(VENV); torch is large, the first time takes minutes" >&2
	$(PIP) --editable '.[jobs,$*]'
	@touch $@
