# Everything runs in .venv, which the first target makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all check format schema

quickstart: $(VENV)/installed  ## install, then pretrain and probe on digits
	$(BIN)/jepa-lab run pipelines/digits.yaml

test: $(VENV)/installed  ## the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

test-all: $(VENV)/installed  ## all tests, the long runs included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/installed  ## lint, format, types, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/installed  ## write the schemas that editors check files with, and the page of all components
	$(BIN)/jepa-lab schema > docs/pipeline.schema.json
	$(BIN)/jepa-lab schema --ablation > docs/ablation.schema.json
	$(BIN)/jepa-lab schema --keys > jepa_lab/commands/keys.json
	$(BIN)/jepa-lab list --markdown > docs/components.md

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e '.[dev,interop,dashboard]'
	touch $@
