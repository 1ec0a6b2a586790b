# Every target that carries a `##` comment is listed by `make help`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: help demo test unit lint format crds golden bench clean down

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml constraints.txt scripts/bootstrap.sh
	@PYTHON=$(PYTHON) scripts/bootstrap.sh $(VENV)

demo: $(VENV)/.installed ## A local cluster, the operator, and an example agent that answers
	@$(BIN)/supportfleet demo

test: $(VENV)/.installed ## Lint, types and every tier of tests (needs root for the local cluster)
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test.sh $(PYTEST_ARGS)

unit: $(VENV)/.installed ## The tests that need nothing but Python
	@$(BIN)/pytest -q -m "not cluster and not services and not e2e and not browser" $(PYTEST_ARGS)

lint: $(VENV)/.installed ## Ruff, mypy and the import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(VENV)/.installed ## Format, and fix what can be fixed
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

crds: $(VENV)/.installed ## Write crds/ and docs/supportagent.md from the models
	@$(BIN)/python -m supportfleet_operator.api.crd --write

bench: $(VENV)/.installed ## Measure what the README's figures say
	@$(BIN)/python benchmarks/all.py

down: ## Take the demo's cluster down
	@$(BIN)/supportfleet local down

clean: ## Remove the virtual environment and every tool's cache in the checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
