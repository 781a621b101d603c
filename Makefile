# Two commands: `make demo` (prune a real model) and `make test`. Everything lives in .venv and in
# the cache folder of the embedded model; running a target twice repeats no download.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
AUDIT := .venv-audit
export PIP_DISABLE_PIP_VERSION_CHECK = 1

ADVISORIES := "import json, urllib.request as u; json.load(u.urlopen('https://pypi.org/pypi/click/8.1.7/json', timeout=5))['vulnerabilities']"

.PHONY: demo test test-slow test-embedded test-coverage test-machines torture check fix bench install clean-demo fuzz audit

demo: install
	@# 3: no set of heads within the limit reduces the measured gap beyond its interval; the report says which were tried.
	$(BIN)/levelhead demo --out $(DEMO) || test $$? -eq 3
	@echo "open $(DEMO)/report.html"

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not simulation and not network"

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

# What continuous integration runs of the slow tests: those on the real embedded model, and studies of runs.
test-embedded: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow tests/data tests/embedded tests/export tests/experiments

test-coverage: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m simulation

# The default and the embedded tier under the rounding of other machines: other vector instructions, two
# threads, oneDNN's matrix products; more than an hour of two cores. SETTINGS="avx2-1-onednn own-2-mkl"
# chooses, ARGS="tests/models -x" runs these tests of the default tier alone.
SETTINGS ?=
ARGS ?=
test-machines: install
	$(BIN)/python -m tests.machines --settings "$(SETTINGS)" -- $(ARGS)

# Kills, damaged files and full disks, on tiny models; about an hour of two busy cores. The last need root.
torture: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture

# Thousands of damaged inputs for every parser, and of inputs for every property; counts at the end.
FUZZ_INPUTS ?= 2000
fuzz: $(VENV)/.installed
	OMP_NUM_THREADS=1 FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest tests/fuzz

# Known vulnerabilities of the pinned packages, from PyPI's advisories: it needs the network, and says so.
audit:
	test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit || \
	  { echo "audit: cannot install pip-audit; is there a network? Nothing was checked." >&2; exit 1; }
	$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt || \
	  { echo "audit: vulnerable packages, or no advisories could be had (the lines above say which)" >&2; exit 1; }

check: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@if $(BIN)/python -c $(ADVISORIES) 2>/dev/null; then $(MAKE) audit; \
	  else echo "audit: skipped, PyPI's advisories cannot be reached from here" >&2; fi

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
