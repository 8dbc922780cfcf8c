# make demo    scoring alone, without torch: a dozen drawn images, and a page of their scores
# make test    everything: environment, lint, types, tests
# make check   lint and types alone
# make bench   measure the starter on this machine, and write the tables of README.md and docs/
# make tables  write the tables from the results that are there
# make clean   remove what the others made

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
BASE := .venv/base
INSTALLED := .venv/installed
TYPED := .cache/typed
RESULTS := benchmarks/results

.PHONY: demo test test-full check bench tables clean

demo: $(BASE)
	$(BIN)/trtdet demo

test: check
	$(BIN)/pytest -n auto -m "not full"

test-full: check
	$(BIN)/pytest -n auto

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPED)
	$(BIN)/python setup.py -q build_py --build-lib $(TYPED)
	MYPYPATH=$(TYPED) $(BIN)/mypy --package trtdet

bench: $(INSTALLED)
	mkdir -p .cache $(RESULTS)/verify $(RESULTS)/bench
	$(BIN)/trtdet verify --json starter > .cache/starter.json
	mv .cache/starter.json $(RESULTS)/verify/starter.json
	$(BIN)/trtdet bench starter --json $(RESULTS)/bench/starter.json
	$(BIN)/python -m trtdet.benchmarks.tables

tables: $(INSTALLED)
	$(BIN)/python -m trtdet.benchmarks.tables

# What `pip install trtdet` brings.
$(BASE): setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "trtdet needs Python 3.10 or newer")'
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

$(INSTALLED): $(BASE)
	$(PIP) --editable '.[build,parquet,peers,ray,tensorrt-rtx,test]'
	touch $@

clean:
	rm -rf .venv trtdet-demo .setuptools .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
