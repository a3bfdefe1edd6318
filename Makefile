# Sets gpt2lab up in .venv and runs it. Each target does only what is not done yet; `make` alone lists them.
#
#   PYTHON    the Python that .venv is made with          make story PYTHON=python3.12
#   EXTRAS    extras installed for the tests; "test" leaves out torch and transformers, whose tests are then skipped
#   PYTEST    more arguments for pytest                   make test PYTEST="-k sampling -x"

PYTHON = python3
VENV = .venv
EXTRAS = test,compare,train,serve,ray,browser
PYTEST =

BIN = $(VENV)/bin
# constraints.txt says which version of everything is installed, in the isolated build too (new pips read the second).
export PIP_CONSTRAINT = constraints.txt
export PIP_BUILD_CONSTRAINT = constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
PIP_INSTALL = $(BIN)/python -m pip install -qq
# A process for each processor, but each takes half a gigabyte. A file's tests share fixtures, and stay together; files
# in their order begin with the longest, those in a browser.
RUN_TESTS = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
SOURCES = CMakeLists.txt pyproject.toml constraints.txt README.md LICENSE NOTICE \
          $(shell find native src -type f ! -name '*.so' ! -name '*.pyc')

.PHONY: help story test test-all lint format wheel clean
help:
	@echo "make story     set up and write a tale"
	@echo "make test      set up and run the tests that take seconds"
	@echo "make test-all  all tests"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff rewrite the sources"
	@echo "make wheel     a wheel for this kind of machine, in dist/"
	@echo "make clean     remove .venv and what was built"

story: $(VENV)/.installed
	@$(BIN)/gpt2lab generate "Once upon a time" --length 150 --temperature 0.8 --top_k 40

test: $(VENV)/.tests
	@$(RUN_TESTS) -m "not slow" $(PYTEST)

test-all: $(VENV)/.tests
	@$(RUN_TESTS) $(PYTEST)

lint: $(VENV)/.lint
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(VENV)/.lint
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

wheel: $(VENV)/.python
	@$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) build dist

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "gpt2lab needs Python 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "* making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python $(SOURCES)
	@echo "* building and installing gpt2lab (a minute or so the first time)" >&2
	@$(PIP_INSTALL) .
	@touch $@

# gpt2lab is installed already, so that this adds the packages of its extras alone.
$(VENV)/.tests: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "* installing what the tests need ($(EXTRAS); some minutes the first time)" >&2
	@$(PIP_INSTALL) "gpt2lab[$(EXTRAS)]"
	@touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "* installing ruff and mypy" >&2
	@$(PIP_INSTALL) "gpt2lab[lint]"
	@touch $@
