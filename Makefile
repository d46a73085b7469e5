# Every target sets itself up in a virtual environment of its own: .venv, Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo docs test test-slow benchmark benchmark-full results speed fallback clean

demo: .venv/examples
	$(BIN)/python examples/plot_compare.py

# in as many processes as there are processors
test: .venv/test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow --numprocesses auto --dist worksteal

# the site, docs/_build/html/index.html: runs all examples
docs: .venv/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

QUALITY = benchmarks/quality

benchmark: .venv/benchmarks
	rm -f $(QUALITY)/outputs/quick*
	$(BIN)/benchopt run $(QUALITY) --config $(QUALITY)/quick.yml --n-jobs -1 --no-plot --output quick
	$(BIN)/python benchmarks/quality_report.py $(QUALITY)/outputs/quick.parquet --open

benchmark-full: .venv/benchmarks
	rm -f $(QUALITY)/outputs/full*
	$(BIN)/benchopt run $(QUALITY) --config $(QUALITY)/full.yml --n-jobs -1 --no-plot --output full
	$(BIN)/python benchmarks/quality_report.py $(QUALITY)/outputs/full.parquet --open

# RUN=file.parquet takes another run than the newest
results: .venv/benchmarks
	$(BIN)/python benchmarks/quality_report.py $(RUN) --results

speed: .venv/benchmarks
	$(BIN)/benchopt run benchmarks/speed

fallback: .venv/benchmarks
	$(BIN)/python benchmarks/pca_fallback.py --out fallback.csv

.venv/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

clean:
	rm -rf .venv
