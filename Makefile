# Every target sets itself up in a virtual environment of its own: .venv, Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-slow speed floor clean

demo: .venv/examples
	$(BIN)/python examples/plot_compare.py

test: .venv/test
	$(BIN)/python -m pytest

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow

speed: .venv/benchmarks
	$(BIN)/benchopt run benchmarks/speed

floor: .venv/benchmarks
	$(BIN)/python benchmarks/linear_floor.py --out floor.csv

.venv/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

clean:
	rm -rf .venv
