# `make train` and `make test` work on a fresh machine: all they need is Python 3.11 and make.
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif
BIN := .venv/bin
# One file of tests stays in one process: its fixtures are trained curricula.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

.PHONY: train test test-all lint types clean

train: .venv/ready
	$(BIN)/python train.py --stage all

test: .venv/ready-dev
	$(PYTEST) -m "not slow"

test-all: .venv/ready-dev
	$(PYTEST)

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready-dev
	$(BIN)/mypy

# torch comes first and alone: asked for beside others, pip may settle on a build with CUDA packages.
.venv/ready: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' requirements.txt)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/ready-dev: requirements-dev.txt .venv/ready
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# Removes what can be made again; trained stages (output/) and tracked runs (mlruns/) stay.
clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
