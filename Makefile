# Every target makes the environment it needs; each works first and alone on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip

.PHONY: install demo test check format docs bench versions clean

install: $(STAMP)

# torch first: asked for by another package, its newest build would bring gigabytes of CUDA libraries.
$(STAMP): pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --disable-pip-version-check -c requirements/constraints.txt torch
	$(PIP) install -q --disable-pip-version-check -c requirements/constraints.txt -e ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/theophylline.py

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/sphinx-build -n -W -b html docs docs/_build/html

bench: $(STAMP)
	$(BIN)/python benchmarks/theophylline.py

# The quick tests under the oldest and newest releases, on every Python that is here.
versions:
	scripts/versions.sh

clean:
	rm -rf $(VENV) output docs/_build
