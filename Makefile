# `make demo` and `make test` set everything up on a fresh machine; the second time they only run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A folder that already holds the two measured scans; without one, the tests that need them look in the user's cache.
PTYCHOW_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data))
ifneq ($(PTYCHOW_DATA),)
export PTYCHOW_DATA
endif

.PHONY: demo test lint format clean

demo: $(INSTALLED)
	$(BIN)/ptychow demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "PtychoW needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
