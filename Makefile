# Everything that a person or CI runs. Each target sets up what it needs, into .venv/ and nowhere else.
# `make demo` shows the main job, `make test` passes the tests; README.md builds on these two.

# For `time`, which says how long each part of the tests took.
SHELL := /bin/bash
export TIMEFORMAT := took %lR
PYTHON ?= python3
VENV := .venv
# Without it every start of every step would compile our own modules anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# What waits longest comes first; what shares a server stays together (tests/conftest.py).
SIDE_BY_SIDE := -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: cluster cluster-down e2e demo soak hostile fuzz test test-fast test-crash bench check format lock crds clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.runtime ## run the refund example, kill it twice, finish it
	@$(BIN)/python -m examples.refund.demo

test: $(VENV)/.dev check ## all tests; on a real Kubernetes, built on first use: tests/cluster/README.md
	time $(PYTEST) -n 2 tests/unit tests/replay
	time $(BIN)/python -m tests.fuzz --minutes 1
	@time $(BIN)/python -m tests.cluster build
	time $(PYTEST) $(SIDE_BY_SIDE) tests/cluster tests/control_plane tests/chart tests/e2e tests/crash
	time $(PYTEST) tests/hostile

test-fast: $(VENV)/.dev ## the fast tests
	$(PYTEST) -n 2 tests/unit tests/replay

test-crash: $(VENV)/.dev ## every point of failure, one at a time
	$(PYTEST) -n 2 tests/crash

e2e: $(VENV)/.dev ## the tests on a real Kubernetes (root, or AGENTRUN_TEST_KUBECONFIG: tests/cluster/README.md)
	@$(BIN)/python -m tests.cluster build
	$(PYTEST) $(SIDE_BY_SIDE) tests/cluster tests/control_plane tests/chart
	$(PYTEST) tests/hostile

hostile: $(VENV)/.dev ## a hundred of each of the worst objects, another tenant's timers beside them; ten minutes
	$(PYTEST) -rP tests/hostile

fuzz: $(VENV)/.dev ## random input for the decoder, the validator and the planner, ten minutes (MINUTES=20)
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10)

cluster: $(VENV)/.dev ## start a Kubernetes on this machine and leave it running, with the image and a store
	@$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.dev ## end the one of `make cluster`
	@$(BIN)/python -m tests.cluster down

bench: $(VENV)/.dev ## measure, beside a reference in the same run
	$(BIN)/python -m tests.bench

soak: $(VENV)/.dev ## chaos and bad tenants on a real Kubernetes, ten minutes (MINUTES=60 for an hour)
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10)

check: $(VENV)/.dev ## types, style, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	time $(BIN)/mypy --strict -p agentrun
	time $(BIN)/mypy --strict examples tests
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m agentrun.api.crd --check crds
	$(BIN)/python -m agentrun.api.crd --check charts/agentrun-crds/files

format: $(VENV)/.dev ## write what can be written for you: style and generated files
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/python -m agentrun.api.crd crds
	$(BIN)/python -m agentrun.api.crd charts/agentrun-crds/files

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --group build -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --group dev -o requirements-dev.lock

clean: ## remove the environment and what runs left in .agentrun/
	rm -rf $(VENV) .agentrun

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"agentrun needs Python 3.11 or later, $(PYTHON) is {v.major}.{v.minor}: make PYTHON=python3.11 …")'
	@echo "setting up $(VENV)/ (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
