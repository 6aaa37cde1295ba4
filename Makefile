# make demo   everything from nothing: install, database, data, a sweep of 24 tasks, results
# make test   every test, on the embedded PostgreSQL
# make lint   ruff, mypy --strict, import contracts; hadolint, shellcheck, yamllint, the schema of compose files
# make bench  benchmarks, as ratios
# make soak   200 tasks, 8 workers and a fault every second for two minutes; SOAK_ARGS="--seed 7" repeats a schedule
# make docs   the picture of the tables, drawn from the code

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO   ?= demo
SCRIPTS = .ci/container .ci/kustomize .ci/mysql .ci/programs .ci/run .ci/slurm deploy/docker/lock $(wildcard deploy/slurm/*.sbatch) examples/demo.sh

.PHONY: install demo test lint bench soak docs clean-demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt plugins/synicix_mlp/pyproject.toml plugins/synicix_neurodata/pyproject.toml \
		plugins/synicix_launch/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[embedded]' --editable plugins/synicix_mlp --editable 'plugins/synicix_neurodata[nwb,plots]' --editable plugins/synicix_launch
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) --editable '.[embedded,dev]'
	touch $@

demo: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh $(DEMO)

clean-demo:
	test ! -f $(DEMO)/synicix.toml || $(BIN)/synicix-run --project $(DEMO) db stop
	rm -rf $(DEMO)

test: $(VENV)/.dev
	$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for script in $(SCRIPTS); do bash -n "$$script" || exit; done
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/hadolint deploy/docker/Dockerfile*
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/docker/compose*.yaml
	$(BIN)/yamllint --strict deploy

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --editable '.[embedded,dev,bench]'
	touch $@

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py

soak: $(VENV)/.dev
	$(BIN)/python -m tests.faults.soak $(SOAK_ARGS)

docs: $(VENV)/.dev
	$(BIN)/python docs/draw_tables.py
