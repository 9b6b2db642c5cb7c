# Every target sets itself up: `make demo` and `make test` need Python 3.11 or newer, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/pyrolatent demo --out out --force

test: lint
	$(BIN)/pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

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
