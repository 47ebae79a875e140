# One command each: `make demo` runs the product with no account, `make test` passes the whole test suite.
PYTHON ?= $(firstword $(foreach v,python3 python3.14 python3.13 python3.12 python3.11,$(shell $(v) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(v))))
VENV ?= .venv
BIN = $(VENV)/bin
# Newer pips show what setuptools has to say of editable installations in general, a dozen lines of it.
INSTALL = PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Tests wait more than they compute: one process more than there are cores keeps those busy.
JOBS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) + 1)))

.PHONY: help demo test soak bench check setup clean

help:
	@echo "make demo    an SFTP server over a local Dropbox on 127.0.0.1:2222, no account needed"
	@echo "make test    set up and run the whole test suite; TEST=tests/emulator runs a part of it"
	@echo "make soak    fuzzing, load and endurance, for an hour or so"
	@echo "make bench   how fast it is beside rclone, for about an hour; BENCH=--help shows the options"
	@echo "make check   ruff, mypy --strict"
	@echo "make setup   only set up: .venv/bin/pytest, .venv/bin/fs-dropbox and the others"
	@echo "make clean   remove the virtual environment and what the tools left"

demo: $(VENV)/.demo
	@$(BIN)/sftp-gateway demo $(DEMO)

test: $(VENV)/.dev
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal $(TEST)

soak: $(VENV)/.dev
	$(BIN)/pytest -v -m soak $(TEST)

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(BENCH)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(VENV)/.dev

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: setup.cfg | $(VENV)/bin/python
	@echo "Setting up $(VENV) ..."
	@$(INSTALL) -e '.[gateway]'
	@touch $@

$(VENV)/.dev: setup.cfg | $(VENV)/bin/python
	@echo "Setting up $(VENV) for tests ..."
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
