# Needs Python >= 3.11, make and a package index; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Training has requirements of its own; where no wheel of PyTorch for the CPU is found, tell pip
# of PyTorch's CPU index (PIP_EXTRA_INDEX_URL).
TRAINING := .venv-training
TRAINING_LOCK := deployments/demo_model/training/requirements.lock

# A process for each core, but not so many Prefect servers that they crowd each other out.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-fast check format bench bench-quick model lock check-bounds docs clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(READY)  ## Translate the sample reports with a small model on two local servers
	@rm -rf demo-output
	$(BIN)/reports demo

test: $(READY)  ## Run every test; branch coverage has to be 90 % or more
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report=term:skip-covered

test-fast: $(READY)  ## Run the tests of the core alone: no Prefect, no child processes of ours
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/core

check: $(READY)  ## Format, lint, strict types and import contracts, as CI does
	@failed=; \
	for step in "ruff format --check ." "ruff check ." "mypy" "lint-imports"; do \
		echo "== $$step"; $(BIN)/$$step || failed="$$failed [$$step]"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

format: $(READY)  ## Bring the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Measure everything that the README claims (45 minutes on two cores)
	$(BIN)/python -m tests.bench --all

bench-quick: $(READY)  ## Compare the dispatch policies with a naive gather, in a minute
	$(BIN)/python -m tests.bench --quick

model: $(TRAINING)/.ready  ## Train the demo model again from nothing (45 minutes on two cores)
	$(TRAINING)/bin/python -m deployments.demo_model.training.train --out data/demo_model
	$(TRAINING)/bin/python -m deployments.demo_model.training.evaluate data/demo_model/reports-fr-en.gguf

docs: $(READY)  ## Write the data dictionary from the schema
	$(BIN)/python -m tasks.core.data_dictionary > data/README.md

lock: $(READY)  ## Resolve the bounds of pyproject.toml again, into requirements.lock
	$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --quiet \
		--upgrade --output-file requirements.lock

check-bounds:  ## Start a Prefect server from a fresh resolution of the bounds (needs an index)
	deployments/check_bounds.sh $(PYTHON)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(TRAINING) build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache demo-output bench-output

$(TRAINING)/.ready: $(TRAINING_LOCK)
	$(PYTHON) -m venv $(TRAINING)
	$(TRAINING)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(TRAINING_LOCK)
	@touch $@

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# The lock is complete; older pips cannot resolve extras against hashes by themselves.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
