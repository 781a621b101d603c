# Two commands: `make demo` (prune a real model) and `make test`. Everything lives in .venv and in
# the cache folder of the embedded model; running a target twice repeats no download.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow test-embedded test-coverage torture check fix bench install clean-demo

demo: install
	$(BIN)/levelhead run --out $(DEMO)
	@echo "open $(DEMO)/report.html"

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not simulation and not network"

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

# What continuous integration runs of the slow tests: those on the real embedded model.
test-embedded: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow tests/data tests/embedded tests/export

test-coverage: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m simulation

# Kills, damaged files and full disks, on tiny models; a quarter of an hour. The last need root.
torture: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture

check: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fix: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(VENV)/.installed
	$(BIN)/levelhead fetch-model

bench: install
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

clean-demo:
	rm -rf $(DEMO)

# torch first and alone: its CPU build must be there before anything asks for "torch".
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
