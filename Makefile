# Every verb of the project. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export GW_JOBS ?= $(shell nproc)

.PHONY: help
help: ## list the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip installs what the project needs and the command; the extensions are `build`'s alone, and so are compiled once.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check "setuptools>=77" wheel "cython>=3.1,<4"
	GW_ONLY=none $(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e ".[demo]"
	@touch $@

.PHONY: build
build: $(STAMP) ## .venv with the compiled gateway: .venv/bin/isthmus
	@$(BIN)/python setup.py -q build_ext --inplace

.PHONY: run
run: build ## start the gateway on config/demo.yaml with two demo origins and a store
	@$(BIN)/isthmus demo

$(VENV)/.tested: $(STAMP)
	GW_ONLY=none $(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e ".[test]"
	@touch $@

.PHONY: test
test: $(VENV)/.tested build ## the whole test suite
	$(BIN)/python -m pytest -n $(GW_JOBS) --dist loadfile tests

.PHONY: quick
quick: $(VENV)/.tested build ## the unit tests alone
	$(BIN)/python -m pytest -n $(GW_JOBS) --dist loadfile tests --ignore tests/wire --ignore tests/e2e -m "not slow"

.PHONY: lint
lint: $(VENV)/.tested ## ruff, mypy, cython-lint
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/cython-lint --max-line-length 140 gateway/_core

.PHONY: clean
clean: ## remove what was built
	rm -rf build dist *.egg-info gateway/_core/*.so

-include mk/*.mk
