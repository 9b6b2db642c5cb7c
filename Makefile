# Every target sets itself up: `make demo` and `make test` need Python 3.11 or newer, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test verify lint bench arviz1 clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/pyrolatent demo --out out --force

test: lint
	$(BIN)/pytest

# Whether fits are right, by simulation: docs/verification.md. Half an hour.
verify: .venv/installed-test
	$(BIN)/pytest -m "verify or not verify" $(addprefix tests/test_,calibration.py geweke.py sbc.py posteriordb.py)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

# Speed beside other libraries, which live in an environment of their own: benchmarks/README.md. Hours.
bench: .venv/installed-test .venv-bench/installed
	$(BIN)/python -m benchmarks.samplers
	$(BIN)/python -m benchmarks.svi
	$(BIN)/python -m benchmarks.correlations
	$(BIN)/python -m benchmarks.disentanglement
	$(BIN)/python -m benchmarks.stages
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.deep
	$(BIN)/python -m benchmarks.em
	$(BIN)/python -m benchmarks.abtests
	$(BIN)/python -m benchmarks.autoguide
	$(BIN)/python -m benchmarks.scaling gradient
	$(BIN)/python -m benchmarks.scaling chains
	$(BIN)/python -m benchmarks.scaling memory
	$(BIN)/python -m benchmarks.compiling
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.page

# ArviZ 1 needs Python 3.12 or newer: make arviz1 PYTHON=python3.13
arviz1: .venv-arviz1/installed
	.venv-arviz1/bin/pytest tests/test_export.py tests/test_from_pyro.py

clean:
	rm -rf out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find pyrolatent tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install -c constraints.txt -e .
	touch $@

.venv/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install -c constraints.txt -e '.[test]'
	touch $@ .venv/installed

.venv-arviz1/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-arviz1
	grep -Ev '^(arviz|xarray-einstats)==' constraints.txt > .venv-arviz1/constraints.txt
	.venv-arviz1/bin/pip install -c .venv-arviz1/constraints.txt 'arviz>=1' -e '.[test]'
	touch $@

.venv-bench/installed: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -r $<
	touch $@
