# `make demo` and `make test` do everything, set-up included.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint format bench bench-scaling evaluate clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/weightgate demo

test: $(STAMP)
	scripts/ensure-chromium
	scripts/ensure-postgres
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	benchmarks/run

# The ladder takes about an hour; what is built already is not built again.
bench-scaling: $(STAMP)
	$(BIN)/python -m benchmarks.scaling_ladder

# Needs the public pairs in the folder that WEIGHTGATE_TEST_DATA names; writes benchmarks/results/. With WORLD=FOLDER it
# judges interventions on the built-in world too.
evaluate: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[evaluate]'
	$(BIN)/python -m benchmarks.evaluate $(WORLD)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
