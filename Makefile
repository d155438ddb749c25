# Two commands to begin with: `make demo` and `make test`. Both make their own environment in .venv first, once, and
# again when pyproject.toml or constraints.txt changes. Needs python3.11 and make.

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.made
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input
JOBS   ?= 2
SEEDS  ?= 3

# Real data for the tests, where the folder beside this one has it; OBLIVIO_DATA, when set, wins.
ifndef OBLIVIO_DATA
ifneq ($(wildcard ../shared/data/.),)
export OBLIVIO_DATA := $(abspath ../shared/data)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help env demo test lint unit docs claims bench format clean distclean

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

env: $(STAMP) ## the environment alone

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt setuptools
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(STAMP) ## the main job from end to end, on data that comes with the package
	@unset OBLIVIO_DATA; $(BIN)/python -m oblivio demo

test: lint unit ## everything that must hold: lint, types, floors, tests

lint: $(STAMP) ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# One torch thread for each of the workers. Tests that measure come first and by themselves (5: there are none).
unit: export OMP_NUM_THREADS := 1
unit: $(STAMP) ## the tests; ARGS='-k word' for some of them
	$(BIN)/python -m pytest -m 'alone and not slow' $(ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest -m 'not alone and not slow' -n $(JOBS) --dist worksteal $(ARGS)

docs: $(STAMP) ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

claims: $(STAMP) ## every claim over SEEDS seeds, recorded in results/claims
	$(BIN)/python -m oblivio claims run --seeds $(SEEDS)

bench: $(STAMP) ## speed against the bare loop, recorded in results/bench
	@mkdir -p results/bench
	$(BIN)/python -m oblivio bench speed --json results/bench/speed.json

.PHONY: kills
kills: export OMP_NUM_THREADS := 1
kills: export PYTHONPATH := tests
kills: $(STAMP) ## kill the main job in every place and go on with it, recorded in results/kills.json
	$(BIN)/python -m kills --json results/kills.json

format: $(STAMP) ## write what `make lint` asks for, where a machine can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## what tools left behind; the environment stays
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## the environment too
	rm -rf $(VENV)
