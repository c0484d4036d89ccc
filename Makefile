# Two targets matter: `make demo` shows what this does, `make test` proves it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Constraints are a resolver's lock (see `make lock`): pip alone would search for minutes.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# What starts no daemons runs on all cores; the rest would take the CPUs from itself.
PURE := tests/unit tests/property tests/simulation

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 demo") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing; on Debian/Ubuntu: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing the core into $(VENV) …"
	@$(PIP) install --constraint constraints.txt --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing what the tests need …"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.core ## install the core into .venv
demo: $(VENV)/.core ## three clusters on this machine, a real training run, explained; then cleaned up
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev ## lint, types, import contracts, and every test
	@$(BIN)/python scripts/test_needs.py
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PURE)
	@$(BIN)/python -m pytest --ignore tests/unit --ignore tests/property --ignore tests/simulation

check: $(VENV)/.dev ## lint, types and import contracts only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

lock: ## resolve the dependencies anew into constraints.txt
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile --quiet --no-annotate --no-header --python-version 3.11 --extra dev pyproject.toml -o constraints.txt

clean: ## remove the venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help install demo test check lock clean
