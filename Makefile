# make help lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
SEED ?= 0
DEMO_FLAGS ?=
NOTEBOOK_FLAGS ?=
TEST_FLAGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help .venv demo test test-all lint format notebooks clean

help: ## List the targets
	@echo "make TARGET [PYTHON=python3.12] ..."
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

.venv: $(INSTALLED) ## Make .venv and install what is needed; again when the requirements change

$(INSTALLED): requirements.txt requirements-paper.txt requirements-onnx.txt requirements-dev.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: there is no $(PYTHON) here; install Python 3.10 to 3.13, or name it: make PYTHON=python3.12"; \
	  exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: Python 3.10 to 3.13 is needed (TensorFlow's range), but $(PYTHON) is $$($(PYTHON) --version 2>&1); name another: make PYTHON=python3.12"; \
	  exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; \
	  exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade -r requirements-dev.txt
	@touch $@

demo: $(INSTALLED) ## Generate data, train, evaluate, draw and export under runs/demo [SEED=0]
	$(BIN)/python -m keras_frcnn demo --out runs/demo --seed $(SEED) $(DEMO_FLAGS)

test: lint ## Lint and run all but the slow tests, in ten minutes [TEST_FLAGS="-x"]
	$(BIN)/python -m pytest -m "not slow" $(TEST_FLAGS)

test-all: lint ## Lint and run all tests, in half an hour, as CI does [TEST_FLAGS="-x"]
	$(BIN)/python -m pytest $(TEST_FLAGS)

lint: $(INSTALLED) ## Check format and code
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

format: $(INSTALLED) ## Format, and mend what can be mended
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

notebooks: $(INSTALLED) ## Run the notebook and keep its outputs [NOTEBOOK_FLAGS="--set NAME=VALUE"]
	$(BIN)/python notebooks/execute.py notebooks/first_detector.ipynb $(NOTEBOOK_FLAGS)

clean: ## Remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
