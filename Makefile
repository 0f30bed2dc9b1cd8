# Everything a newcomer needs: `make demo` and `make test` set up what they use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LIBTPU := $(VENV)/libtpu

.PHONY: demo test format clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# Scores the shipped model, separates a real song, trains a small one for a minute.
demo: $(STAMP)
	$(BIN)/python demo.py

# The TPU compiler that belongs to the installed JAX, beside the environment and not in it: where
# it can be imported, every start of JAX on a machine without a TPU prints warnings.
$(LIBTPU): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ \
	    "$$($(BIN)/python -c 'from importlib.metadata import requires; print(next(r for r in requires("jax") if r.startswith("libtpu")).split(";")[0])')"
	touch $@

# The whole check: format, lint, types, tests. Programs for TPUs are compiled without a TPU. A test
# process for each core: compiling, which takes most of the time, keeps one core busy.
test: $(STAMP) $(LIBTPU)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	TPU_LIBRARY_PATH=$(CURDIR)/$(LIBTPU)/libtpu/libtpu.so \
	    $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
