# Every target makes the environment it needs; each works first and alone on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip

.PHONY: install demo test test-benchmarks test-quick check format docs bench wheel versions clean

install: $(STAMP)

# torch first: asked for by another package, its newest build would bring gigabytes of CUDA libraries.
$(STAMP): pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --disable-pip-version-check -c requirements/constraints.txt torch
	$(PIP) install -q --disable-pip-version-check -c requirements/constraints.txt -e ".[dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/theophylline.py

# One thread each: more threads than cores stall each other. Three processes for two cores: one in
# ten minutes a process waits for others that it has started.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

test: $(STAMP)
	$(PYTEST) -m "not benchmark"

# Every benchmark in a small setting: whether its script still runs.
test-benchmarks: $(STAMP)
	$(PYTEST) -m benchmark

# What fits beside an edit: no test of more than three seconds, no example, no benchmark.
test-quick: $(STAMP)
	$(PYTEST) -m "not slow and not example and not benchmark"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/sphinx-build -E -n -W -b html docs docs/_build/html

bench: $(STAMP)
	$(BIN)/python benchmarks/theophylline.py

# The wheel and the sdist: built, looked through, installed in a clean environment, and used there.
wheel: $(STAMP)
	scripts/wheel.sh

# The quick tests under the oldest and newest releases, on every Python that is here.
versions:
	scripts/versions.sh

clean:
	rm -rf $(VENV) output docs/_build
