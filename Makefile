# Every target sets itself up in a virtual environment of its own: .venv, Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-slow test-oldest test-newest lint docs dist benchmark benchmark-full results speed fallback clean

demo: .venv/examples
	$(BIN)/python examples/plot_compare.py

# in as many processes as there are processors
test: .venv/test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow --numprocesses auto --dist worksteal

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# the site, in docs/build/html: all examples run, warnings are errors, links are followed
docs: .venv/docs
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 SKAE_DOCS_JOBS=2 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/build/html
	$(BIN)/python .ci/links.py docs/build/html

# what can be published: built, checked, installed into an empty environment, and tried there with README's first example
dist: .venv/dist
	rm -rf dist build
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/smoke.py dist/*.whl dist/*.tar.gz

# The oldest supported versions. PyTorch 2.4.0 from the package index brings gigabytes of CUDA, which a CPU does not need:
# give pip PyTorch's own index of CPU builds if there is one, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
test-oldest:
	$(MAKE) .venv-oldest/ready
	.venv-oldest/bin/python -m pytest $(TESTS)

# the newest, whatever constraints.txt says
test-newest:
	$(MAKE) .venv-newest/ready
	.venv-newest/bin/python -m pytest $(TESTS)

.venv-%/ready: pyproject.toml .ci/oldest.txt .ci/newest.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --requirement .ci/$*.txt --editable .
	touch $@

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
	rm -rf .venv .venv-oldest .venv-newest build dist docs/build docs/gallery docs/generated
