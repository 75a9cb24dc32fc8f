# make demo | test | bench: each sets up .venv first; nothing else has to be installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test slow thorough coverage fuzz lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   train, evaluate and report on the built-in digits; writes demo/report/report.html"
	@echo "make test   formatting, types and tests (seven minutes)"
	@echo "make slow   the tests that take many seconds each"
	@echo "make thorough  simulations and fuzzing that repeat on many cases what quicker tests do on few"
	@echo "make coverage  the tests of make test, and which lines they run (takes a quarter longer)"
	@echo "make fuzz   coverage-guided fuzzing of the readers of files (four minutes)"
	@echo "make bench  benchmarks, as ratios within one run"
	@echo "make clean  remove the virtual environment and what tools left behind"

# torch first and pinned: a looser request of some other package could pull another build.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Expected Python >= 3.10, but got " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[aihwkit,dev]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/noiserobust demo --out demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p noiserobust

# One thread for each of two workers: more threads on the small tensors of the tests only wait for each other.
# Tests that share what they are set up with stay together until one worker has no more of its own. Bytecode is kept
# even where the environment says not to: else each worker rewrites the assertions of all tests every time.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal
test: lint
	$(PYTEST) -m "not slow and not thorough"

slow: $(READY)
	$(PYTEST) -m "slow and not thorough"

thorough: $(READY)
	$(PYTEST) -m thorough

coverage: $(READY)
	$(PYTEST) -m "not slow and not thorough" --cov --cov-report=term

# Atheris is no part of the environment, as it has no wheels for some systems; on those this fails.
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m thorough tests/fuzz/test_fuzz_guided.py

bench: $(READY)
	$(BIN)/python experiments/benchmarks/run.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .coverage* build dist *.egg-info
